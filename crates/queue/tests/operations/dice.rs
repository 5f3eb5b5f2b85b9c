//! Reproducible pseudo-random numbers, and the jobs and workers that they make.

use std::time::Duration;

use hearth_queue::{LeaseQuery, ModelPatterns, Models, NewJob, Serve};
use proto::{Account, Dialect, JobId, Op, Priority, Timestamp};

const ACCOUNTS: [&str; 3] = ["a", "b", "c"];
const WORKERS: [&str; 2] = ["v", "w"];

pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// Returns true one time in `sides`.
    pub(crate) fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.roll(of.len() as u64);
        of[usize::try_from(at).unwrap()]
    }

    pub(crate) fn account(&mut self) -> Account {
        Account::new(self.pick(&ACCOUNTS)).unwrap()
    }

    pub(crate) fn job(&mut self, id: JobId, now: Timestamp) -> NewJob {
        let (wanted, size) = (self.roll(400), self.roll(200));
        let level = u8::try_from(self.roll(10) + 1).unwrap();
        let (is_urgent, is_pinned) = (self.once_in(12), self.once_in(6));
        NewJob {
            id,
            account: self.account(),
            who: "w".into(),
            op: Op::Chat,
            model: self.pick(&["m", "Other:latest"]).parse().unwrap(),
            priority: if is_urgent {
                Priority::URGENT
            } else {
                Priority::new(level).unwrap()
            },
            body: vec![b' '; usize::try_from(size).unwrap()].into(),
            dialect: Dialect::Native,
            // Most have a deadline, so that few jobs accumulate.
            deadline: (wanted > 40).then(|| now + Duration::from_secs(wanted)),
            attended: self.once_in(3),
            worker: is_pinned.then(|| self.pick(&WORKERS).parse().unwrap()),
        }
    }

    pub(crate) fn query(&mut self) -> LeaseQuery {
        let serve = match self.roll(4) {
            0 | 1 => Serve::All,
            // Two accounts, or twice the same.
            2 => Serve::Accounts([self.account(), self.account()].into()),
            _ => Serve::Accounts([self.account()].into()),
        };
        let names = self.pick(&[&["m:latest"][..], &["other"], &["M", "other"]]);
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let models = match self.roll(5) {
            0 | 1 => Models::Any,
            2 | 3 => Models::Only(names),
            _ => Models::OnlyUrgent(names),
        };
        let excluded = self.once_in(4).then(|| "m:latest".to_owned());
        let has_little_room = self.once_in(4);
        LeaseQuery {
            worker: self.pick(&WORKERS).parse().unwrap(),
            serve,
            models,
            allowed_models: ModelPatterns::default(),
            excluded_models: excluded.into_iter().collect(),
            accepts_model_changes: false,
            request_max: if has_little_room { 100 } else { usize::MAX },
        }
    }
}
