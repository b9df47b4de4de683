//! Calls: typed, and by name for everything that has no type here.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use vsphere_vim_types::{Any, Element, ManagedObjectReference, Method, MoRef, soap};

use super::{Service, Vim};
use crate::{
    call::{CallOptions, CookieUse, Outgoing},
    error::{Call, Error, Result},
    gate::{self, NewerFields},
    version::VIM_NAMESPACE,
};

impl Vim {
    /// Calls a method of a managed object.
    ///
    /// Methods whose names end in `_Task` return a reference to the task; follow it with [`Vim::wait`].
    ///
    /// # Errors
    /// [`Error::Fault`] when the server refuses, [`Error::Transport`] when the network fails (after the retries that
    /// are harmless for this method), [`Error::Protocol`] when the answer is not understood, [`Error::Unsupported`]
    /// when the method is newer than the negotiated version, [`Error::SessionEnded`] when the session is over and the
    /// credentials allow no further login.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have had its effect on the server.
    pub async fn invoke<M: Method>(&self, this: &MoRef<M::Target>, args: M) -> Result<M::Output> {
        self.invoke_with(this, args, CallOptions::default()).await
    }

    /// The same with a time-out or a statement about repeating of its own.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// As [`Vim::invoke`].
    pub async fn invoke_with<M: Method>(
        &self,
        this: &MoRef<M::Target>,
        args: M,
        options: CallOptions,
    ) -> Result<M::Output> {
        self.invoke_at(&self.inner.service, this, args, options).await
    }

    /// The same on a service beside the main one, in the same session.
    pub(crate) async fn invoke_at<M: Method>(
        &self,
        service: &Service,
        this: &MoRef<M::Target>,
        args: M,
        options: CallOptions,
    ) -> Result<M::Output> {
        self.gate(service, &args)?;
        let operation_id = self.next_operation_id();
        let body = soap::encode_request(this.as_untyped(), &args, self.request_options(service, &operation_id));
        drop(args);
        self.invoke_encoded::<M>(service, this.as_untyped(), body.into(), &operation_id, options).await
    }

    /// The same for a request that is written already.
    async fn invoke_encoded<M: Method>(
        &self,
        service: &Service,
        this: &ManagedObjectReference,
        body: Bytes,
        operation_id: &str,
        options: CallOptions,
    ) -> Result<M::Output> {
        self.invoke_outgoing::<M>(Outgoing {
            operation: M::NAME,
            object: this,
            operation_id,
            service,
            body,
            options,
            cookie: CookieUse::Shared,
            route: None,
        })
        .await
    }

    pub(super) async fn invoke_outgoing<M: Method>(&self, outgoing: Outgoing<'_>) -> Result<M::Output> {
        let limits = self.limits();
        let this = outgoing.object;
        let mut output = None;
        let mut decode = |answer: &[u8]| -> Result<(), soap::Error> {
            output = Some(soap::decode_response::<M>(answer, limits)?);
            Ok(())
        };
        self.perform(outgoing, &mut decode).await?;
        output.ok_or_else(|| Error::protocol(Call::on(M::NAME, this), "the answer was lost"))
    }

    /// Refuses what the server is too old for.
    pub(super) fn gate<M: Method>(&self, service: &Service, args: &M) -> Result<()> {
        let settings = &self.inner.settings;
        gate::check(args, service.version(), settings.newer_methods, settings.newer_fields)
    }

    /// Calls any method by name, with or without a typed wrapper.
    ///
    /// `args` are the parameters in the order of the API's documentation. The answer's `returnval` elements come back
    /// as trees: none when the method returns nothing, several when it returns a list. The method is sent whatever the
    /// negotiated version is.
    ///
    /// # Errors
    /// As [`Vim::invoke`].
    ///
    /// # Cancel safety
    /// As [`Vim::invoke`].
    pub async fn invoke_dynamic(
        &self,
        this: &ManagedObjectReference,
        method: &str,
        args: &[(&str, Any)],
        options: CallOptions,
    ) -> Result<Vec<Element>> {
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if method.is_empty() || !method.bytes().all(plausible) {
            return Err(Error::invalid_input("method", "not the wire name of a method"));
        }
        let operation_id = self.next_operation_id();
        let service = &self.inner.service;
        let body =
            soap::encode_dynamic(VIM_NAMESPACE, method, this, args, self.request_options(service, &operation_id));
        let limits = self.limits();
        let mut output = Vec::new();
        let mut decode = |answer: &[u8]| -> Result<(), soap::Error> {
            output = soap::decode_dynamic(answer, limits)?;
            Ok(())
        };
        let outgoing = Outgoing {
            operation: method,
            object: this,
            operation_id: &operation_id,
            service,
            body: body.into(),
            options,
            cookie: CookieUse::Shared,
            route: None,
        };
        self.perform(outgoing, &mut decode).await?;
        Ok(output)
    }

    /// The decoded values may take some times the memory of their text, and no more.
    fn limits(&self) -> soap::Limits {
        soap::Limits { memory: self.inner.settings.max_answer.saturating_mul(4), ..soap::Limits::default() }
    }

    /// Names the call in the server's log and leaves out what the service's version does not know.
    pub(super) fn request_options<'a>(&self, service: &Service, operation_id: &'a str) -> soap::RequestOptions<'a> {
        let gated = self.inner.settings.newer_fields != NewerFields::Send;
        soap::RequestOptions {
            operation_id: Some(operation_id),
            version: gated.then(|| service.version()),
            ..Default::default()
        }
    }

    /// Short, unique, and found again in the server's logs.
    pub(super) fn next_operation_id(&self) -> String {
        format!("{}-{}", self.inner.operation_prefix, self.inner.operations.fetch_add(1, Ordering::Relaxed))
    }
}
