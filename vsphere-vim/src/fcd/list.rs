//! Finding First Class Disks: by datastore, or anywhere and page by page.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use vsphere_vim_types::{
    MoRef, PropertyPath, VslmVsoVStorageObjectQueryResult, VslmVsoVStorageObjectQuerySpec, methods, mo,
};

use super::{FcdId, FcdRef, back_end::BackEnd};
use crate::{
    error::{Call, Error, Result},
    paged::{Paged, Pages},
    property::Property,
    vslm::Vslm,
};

/// Where to look for First Class Disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FcdScope {
    /// On every datastore that is accessible.
    All,
    /// On one datastore.
    Datastore(MoRef<mo::Datastore>),
}

/// The First Class Disks that were found: a [`Stream`], with [`FcdStream::try_next`] for those without combinators.
///
/// A datastore that cannot be searched is an error among the others; the stream goes on with the next one.
#[must_use]
pub struct FcdStream {
    inner: Paged<Search>,
}

impl FcdStream {
    pub(super) fn new(back_end: BackEnd, scope: FcdScope, page: i32) -> Self {
        let search = match (back_end, scope) {
            (BackEnd::Anywhere(vslm), scope) => {
                let datastore = match scope {
                    FcdScope::All => None,
                    FcdScope::Datastore(datastore) => Some(datastore),
                };
                Search::Anywhere { vslm, datastore, page, after: None, over: false }
            }
            (back_end, FcdScope::All) => Search::Datastores { back_end, left: None },
            (back_end, FcdScope::Datastore(one)) => Search::Datastores { back_end, left: Some([one].into()) },
        };
        Self { inner: Paged::new(search) }
    }

    /// The next disk; `None` at the end.
    ///
    /// # Errors
    /// `InvalidDatastore` and the errors of [`Vim::invoke`](crate::Vim::invoke).
    ///
    /// # Cancel safety
    /// Cancel safe: no disk is lost.
    pub async fn try_next(&mut self) -> Result<Option<FcdRef>> {
        std::future::poll_fn(|cx| self.poll_disk(cx)).await.transpose()
    }

    fn poll_disk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<FcdRef>>> {
        self.inner.poll_item(cx).map(|item| item.map(|found| found.and_then(|one| one)))
    }
}

impl Stream for FcdStream {
    type Item = Result<FcdRef>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_disk(cx)
    }
}

impl Unpin for FcdStream {}

impl fmt::Debug for FcdStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FcdStream").finish_non_exhaustive()
    }
}

enum Search {
    /// One call for each datastore; which those are is found out first.
    Datastores { back_end: BackEnd, left: Option<VecDeque<MoRef<mo::Datastore>>> },
    /// One question after the other, each from the greatest id that the last answer gave.
    Anywhere { vslm: Vslm, datastore: Option<MoRef<mo::Datastore>>, page: i32, after: Option<FcdId>, over: bool },
}

impl Pages for Search {
    type Item = Result<FcdRef>;

    async fn next_page(&mut self) -> Result<Option<Vec<Self::Item>>> {
        match self {
            Self::Datastores { back_end, left } => {
                let left = match left {
                    Some(known) => known,
                    unknown => unknown.insert(accessible_datastores(back_end).await?),
                };
                let Some(datastore) = left.pop_front() else { return Ok(None) };
                Ok(Some(match back_end.list(&datastore).await {
                    Ok(ids) => ids.into_iter().map(|id| Ok(FcdRef::on(&datastore, id.into()))).collect(),
                    Err(error) => vec![Err(error)],
                }))
            }
            Self::Anywhere { over: true, .. } => Ok(None),
            Self::Anywhere { vslm, datastore, page, after, over } => {
                let args = methods::VslmListVStorageObjectForSpec {
                    query: query(datastore.as_ref(), after.as_ref()),
                    max_result: *page,
                    ..Default::default()
                };
                let answer = vslm.invoke(&vslm.disk_manager(), args).await?.unwrap_or_default();
                *over = answer.all_records_returned;
                let found = take(answer, after)?;
                let place = |id| FcdRef { id, datastore: datastore.clone() };
                Ok(Some(found.into_iter().map(|id| Ok(place(id))).collect()))
            }
        }
    }

    async fn finish(self) {}
}

/// What to ask for: ids above `after`. The service wants a condition even where everything is meant.
fn query(datastore: Option<&MoRef<mo::Datastore>>, after: Option<&FcdId>) -> Vec<VslmVsoVStorageObjectQuerySpec> {
    let condition = |field: &str, operator: &str, value: &str| VslmVsoVStorageObjectQuerySpec {
        query_field: field.into(),
        query_operator: operator.into(),
        query_value: vec![value.into()],
        ..Default::default()
    };
    let id = condition("id", "greaterThan", after.map_or("0", FcdId::as_str));
    let on = datastore.map(|datastore| condition("datastoreMoId", "equals", datastore.value()));
    on.into_iter().chain([id]).collect()
}

/// The ids of a page. An answer that is cut and not in order cannot be continued without losing disks.
fn take(answer: VslmVsoVStorageObjectQueryResult, after: &mut Option<FcdId>) -> Result<Vec<FcdId>> {
    const OPERATION: &str = "VslmListVStorageObjectForSpec";
    let wrong = |what: &str| Error::protocol(Call::named(OPERATION), what);
    let found: Vec<FcdId> = match answer.id.is_empty() {
        false => answer.id.into_iter().map(FcdId::from).collect(),
        true => answer.query_results.into_iter().map(|result| result.id.into()).collect(),
    };
    if answer.all_records_returned {
        return Ok(found);
    }
    let mut last = after.clone();
    for id in &found {
        if last.as_ref().is_some_and(|last| last >= id) {
            return Err(wrong("a part of the list is not in the order of ids: disks would be lost"));
        }
        last = Some(id.clone());
    }
    if found.is_empty() {
        return Err(wrong("a part of the list is empty and there is more: asking on would never end"));
    }
    *after = last;
    Ok(found)
}

async fn accessible_datastores(back_end: &BackEnd) -> Result<VecDeque<MoRef<mo::Datastore>>> {
    const ACCESSIBLE: PropertyPath<mo::Datastore, bool> = PropertyPath::new("summary.accessible");
    let rows = back_end.vim().properties::<mo::Datastore>().select((ACCESSIBLE,)).collect().await?;
    let accessible = rows.into_iter().filter(|row| !matches!(row.values, (Property::Present(false),)));
    Ok(accessible.map(|row| row.object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ids: &[&str], all_records_returned: bool) -> VslmVsoVStorageObjectQueryResult {
        let id = ids.iter().map(|id| FcdId::new(*id).to_wire()).collect();
        VslmVsoVStorageObjectQueryResult { all_records_returned, id, ..Default::default() }
    }

    #[test]
    fn a_page_goes_on_behind_its_greatest_id() {
        let mut after = None;
        assert_eq!(take(answer(&["a", "b"], false), &mut after).unwrap().len(), 2);
        assert_eq!(after, Some(FcdId::new("b")));
        assert_eq!(take(answer(&["c"], true), &mut after).unwrap().len(), 1);
        assert_eq!(query(None, after.as_ref())[0].query_value, ["b"]);
    }

    #[test]
    fn a_part_that_cannot_be_continued_is_an_error_and_not_the_end() {
        for ids in [&["b", "a"][..], &["a", "a"], &[], &["0"]] {
            let mut after = Some(FcdId::new("0"));
            assert!(matches!(take(answer(ids, false), &mut after), Err(Error::Protocol(_))), "{ids:?}");
        }
        // Complete, it needs no order.
        assert!(take(answer(&["b", "a"], true), &mut None).is_ok());
    }
}
