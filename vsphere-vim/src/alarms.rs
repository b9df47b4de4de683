//! Alarms: which are set up, and which have gone off.

use vsphere_vim_types::{
    AlarmState, Any, DateTime, Managed, ManagedEntityStatus, ManagedObjectReference, MoRef, PropertyPath, methods, mo,
};

use crate::{client::Vim, error::Result};

/// How an alarm stands for an entity that it watches.
#[doc(alias = "AlarmState")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Alarm {
    /// The alarm; [`Vim::alarm_name`] tells its name.
    pub moref: MoRef<mo::Alarm>,
    /// For what it stands like this.
    pub entity: ManagedObjectReference,
    /// Yellow or red where it has gone off; gray where that is not known.
    pub status: ManagedEntityStatus,
    /// When it came to that, by the server's clock.
    pub changed_at: DateTime,
    /// Who has taken note of it; empty where the server does not say.
    pub acknowledged_by: Option<String>,
    /// The key of the event that set it off.
    pub event: Option<i32>,
}

impl Vim {
    /// The alarms that have gone off at an entity and at what lies in it. ESXi has none: its vCenter watches it.
    ///
    /// Servers since 5.0 need not tell changes of it: ask again instead of watching.
    ///
    /// # Errors
    /// As [`Vim::get_optional`].
    ///
    /// # Privileges
    /// `System.View` on the entity.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "triggeredAlarmState")]
    pub async fn triggered_alarms<T: Managed>(&self, entity: &MoRef<T>) -> Result<Vec<Alarm>> {
        self.alarm_states(entity, mo::ManagedEntity::TRIGGERED_ALARM_STATE).await
    }

    /// How all alarms stand that watch an entity, those of the containers above it included.
    ///
    /// # Errors
    /// As [`Vim::get_optional`].
    ///
    /// # Privileges
    /// `System.View` on the entity.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "declaredAlarmState")]
    pub async fn declared_alarms<T: Managed>(&self, entity: &MoRef<T>) -> Result<Vec<Alarm>> {
        self.alarm_states(entity, mo::ManagedEntity::DECLARED_ALARM_STATE).await
    }

    /// The alarms that are set up on an entity itself; with `None` all that may be seen.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on servers without alarms, such as ESXi.
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "GetAlarm")]
    pub async fn alarms<T: Managed>(&self, entity: Option<&MoRef<T>>) -> Result<Vec<MoRef<mo::Alarm>>> {
        let manager = self.manager("AlarmManager", self.content().alarm_manager.as_ref())?;
        let entity = entity.map(MoRef::cast);
        self.invoke(&manager, methods::GetAlarm { entity, ..Default::default() }).await
    }

    /// The name of an alarm.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "AlarmInfo")]
    pub async fn alarm_name(&self, alarm: &MoRef<mo::Alarm>) -> Result<String> {
        const NAME: PropertyPath<mo::Alarm, String> = PropertyPath::new("info.name");
        self.get(alarm, NAME).await
    }

    /// The definition of an alarm, as it came: its condition and its actions are outside the typed model.
    /// [`Any::path`] looks into it.
    ///
    /// # Errors
    /// As [`Vim::get`].
    ///
    /// # Privileges
    /// `System.View`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "AlarmSpec")]
    pub async fn alarm_definition(&self, alarm: &MoRef<mo::Alarm>) -> Result<Any> {
        const INFO: PropertyPath<mo::Alarm, Any> = PropertyPath::new("info");
        self.get(alarm, INFO).await
    }

    async fn alarm_states<T: Managed>(
        &self,
        entity: &MoRef<T>,
        path: PropertyPath<mo::ManagedEntity, Vec<AlarmState>>,
    ) -> Result<Vec<Alarm>> {
        let states = self.get_optional(&entity.cast(), path).await?;
        Ok(states.unwrap_or_default().into_iter().map(Alarm::from).collect())
    }
}

impl From<AlarmState> for Alarm {
    fn from(wire: AlarmState) -> Self {
        let acknowledged = wire.acknowledged == Some(true);
        Self {
            moref: wire.alarm,
            entity: wire.entity.erase(),
            status: wire.overall_status,
            changed_at: wire.time,
            acknowledged_by: acknowledged.then(|| wire.acknowledged_by_user.unwrap_or_default()),
            event: wire.event_key,
        }
    }
}
