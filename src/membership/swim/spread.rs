//! Records in SWIM's datagrams: foca hands over what comes, and passes on what is news.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use foca::BroadcastHandler;

use super::{BadDatagram, SwimId};
use crate::membership::records::{ItemKey, Records};

/// What foca's callbacks and [`super::Swim`] both need.
pub(super) struct SharedRecords {
    pub(super) records: Records,
    pub(super) now: Duration,
    /// Something came that others do not know yet.
    pub(super) news: bool,
}

/// See the module.
pub(super) struct Spread(pub(super) Rc<RefCell<SharedRecords>>);

impl BroadcastHandler<SwimId> for Spread {
    type Key = ItemKey;
    type Error = BadDatagram;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&SwimId>,
    ) -> Result<Option<ItemKey>, BadDatagram> {
        let SharedRecords { records, now, news } = &mut *self.0.borrow_mut();
        let key = match sender {
            Some(_) => records.heard(data, *now)?,
            // It is this node's own.
            None => Some(ItemKey::of(data)?),
        };
        *news |= key.is_some();
        Ok(key)
    }
}
