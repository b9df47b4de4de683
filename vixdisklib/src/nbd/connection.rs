//! A connection from greeting to goodbye.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};

use super::{
    address::Stream,
    export::OpenExport,
    limits::NbdLimits,
    transmission,
    wire::{
        negotiation::{Encryption, ExportFacts, Modes, Negotiation, Next},
        option::OptionHeader,
    },
};

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) exports: Vec<Arc<OpenExport>>,
    /// The facts of `exports`, in the same order.
    pub(super) facts: Vec<ExportFacts>,
    pub(super) limits: NbdLimits,
}

/// Serves one client until it leaves or `stop` becomes true.
///
/// # Errors
/// What ended the connection, other than a goodbye.
pub(super) async fn serve(
    stream: Box<dyn Stream>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let negotiated = tokio::select! {
        negotiated = timeout(shared.limits.handshake, negotiate(stream, &shared)) => negotiated,
        _ = stop.wait_for(|stopped| *stopped) => return Ok(()),
    };
    let Some((stream, export, modes)) = negotiated.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? else {
        return Ok(());
    };
    let Some(export) = shared.exports.get(export) else { return Ok(()) };
    tracing::debug!(export = export.facts.name, ?modes, "a client begins");
    let (reader, writer) = tokio::io::split(stream);
    transmission::serve(reader, writer, Arc::clone(export), modes, &shared.limits, &mut stop).await
}

/// Answers options until the client has an export; `None` when it leaves without.
async fn negotiate(
    mut stream: Box<dyn Stream>,
    shared: &Shared,
) -> io::Result<Option<(Box<dyn Stream>, usize, Modes)>> {
    stream.write_all(&Negotiation::greeting()).await?;
    stream.flush().await?;
    let mut flags = [0; 4];
    stream.read_exact(&mut flags).await?;
    let mut negotiation = Negotiation::begin(flags, Encryption::Off).map_err(broken)?;
    let mut data = Vec::new();
    let mut answers = BytesMut::new();
    loop {
        let mut header = [0; OptionHeader::LEN];
        stream.read_exact(&mut header).await?;
        let header = OptionHeader::decode(&header).map_err(broken)?;
        if header.len > MAX_OPTION {
            return Err(broken("an option is longer than any that makes sense"));
        }
        data.resize(usize::try_from(header.len).unwrap_or(usize::MAX), 0);
        stream.read_exact(&mut data).await?;
        let next = negotiation.answer(header.number, &data, &shared.facts, &mut answers);
        stream.write_all(&answers.split()).await?;
        stream.flush().await?;
        match next {
            Next::Option => {}
            Next::StartTls => return Err(broken("there is no TLS")),
            Next::Transmit { export, modes } => return Ok(Some((stream, export, modes))),
            Next::Close => {
                stream.shutdown().await?;
                return Ok(None);
            }
        }
    }
}

fn broken(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// The most bytes of an option: several names and queries.
const MAX_OPTION: u32 = 64 << 10;
