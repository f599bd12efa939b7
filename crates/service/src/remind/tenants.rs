//! The reminder policy of each tenant, as published in the topic of policies by the time of a tick.
//!
//! Scores may use a policy that is a second old. A plan may not: an editor of a policy has to know from which tick on
//! it applies, and all clients of that tenant must be evaluated again. So the planner reads the topic itself, and then
//! the policies of the tenants that it names.

use crate::policies::{Active, InForce};
use foretell_domain::remind::policy::ReminderPolicy;
use foretell_events::Topic;
use foretell_events::policy::Kind;
use foretell_ports::Error;
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{Extent, Log};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The only partition of the topic.
pub(super) const PARTITION: u32 = 0;

/// The policies of those tenants that have published one.
#[derive(Default)]
pub(super) struct Tenants {
    known: BTreeMap<String, Arc<Active<ReminderPolicy>>>,
}

impl Tenants {
    /// Reads what was published from `extent.start` to `extent.end`, once that is folded; returns whether any reminder
    /// policy was.
    pub(super) async fn read(
        &mut self,
        log: &dyn Log,
        policies: &InForce<ReminderPolicy>,
        extent: Extent,
    ) -> Result<bool, Error> {
        let mut walk = Walk::begin(log, Topic::Policies, PARTITION, extent, "read policies").await?;
        let mut named = BTreeSet::new();
        while let Some(records) = walk.next().await? {
            let keys = records.iter().filter_map(|record| std::str::from_utf8(record.key.as_deref()?).ok());
            let of_kind =
                keys.filter_map(|text| text.split_once(':').filter(|(_, kind)| *kind == Kind::Reminders.name()));
            named.extend(of_kind.map(|(tenant, _)| tenant.to_owned()));
        }
        let is_changed = !named.is_empty();
        for tenant in named {
            let active = policies.read(&tenant).await?;
            self.known.insert(tenant, active);
        }
        Ok(is_changed)
    }

    /// The policy that applies to a tenant.
    pub(super) fn policy<'a>(&'a self, settings: &'a ReminderPolicy, tenant: &str) -> &'a ReminderPolicy {
        self.known.get(tenant).map_or(settings, |active| &active.policy)
    }

    /// Whether any tenant has a step at the booking: it is due however far ahead the visit is.
    pub(super) fn confirm_bookings(&self, settings: &ReminderPolicy) -> bool {
        self.known.values().map(|active| &active.policy).chain([settings]).any(ReminderPolicy::confirms_bookings)
    }

    /// How long before its start a visit of any tenant can have a reminder due.
    pub(super) fn longest_ms(&self, settings: &ReminderPolicy) -> i64 {
        let known = self.known.values().map(|active| active.policy.longest_ms());
        known.fold(settings.longest_ms(), i64::max)
    }
}
