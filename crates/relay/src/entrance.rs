//! Connections that have shown no good key yet: only so many of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::peer::{Network, canonical, house};

/// Most of one address unless another number is chosen.
const USUAL: usize = 64;

/// Who stands at the entrance.
#[derive(Debug)]
pub(crate) struct Entrance {
    waiting: Mutex<HashMap<IpAddr, usize>>,
    most: Option<usize>,
    proxies: Vec<Network>,
}

/// One connection at the entrance, until it shows a good key or ends.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer(Option<Arc<Stand>>);

#[derive(Debug)]
struct Stand {
    entrance: Arc<Entrance>,
    house: IpAddr,
    has_left: Mutex<bool>,
}

impl Entrance {
    pub(crate) fn new(most: Option<usize>, proxies: &[Network]) -> Self {
        Self {
            waiting: Mutex::default(),
            most,
            proxies: proxies.to_vec(),
        }
    }

    /// A connection came; `None` if too many of its address are there. Those of proxies are not
    /// counted, as many people share them.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Newcomer> {
        let address = canonical(address);
        let is_proxy = self.proxies.iter().any(|proxy| proxy.holds(address));
        let most = self.most.or((!address.is_loopback()).then_some(USUAL));
        let Some(most) = most.filter(|_| !is_proxy) else {
            return Some(Newcomer(None));
        };
        let house = house(address);
        let mut waiting = self.lock();
        let here = waiting.entry(house).or_default();
        if *here >= most {
            return None;
        }
        *here += 1;
        Some(Newcomer(Some(Arc::new(Stand {
            entrance: self.clone(),
            house,
            has_left: Mutex::new(false),
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// It has shown a good key.
    pub(crate) fn goes_in(&self) {
        if let Some(stand) = &self.0 {
            stand.leave();
        }
    }
}

impl Stand {
    fn leave(&self) {
        let mut has_left = self.has_left.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *has_left, true) {
            return;
        }
        let mut waiting = self.entrance.lock();
        if let Some(here) = waiting.get_mut(&self.house) {
            *here -= 1;
            if *here == 0 {
                waiting.remove(&self.house);
            }
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_of_one_house_stand_at_the_entrance() {
        let entrance = Arc::new(Entrance::new(None, &["10.0.0.1".parse().unwrap()]));
        let enter = |address: &str| entrance.enter(address.parse().unwrap());
        let mut all: Vec<_> = (0..USUAL).map(|_| enter("203.0.113.9").unwrap()).collect();
        assert!(enter("203.0.113.9").is_none());
        assert!(enter("::ffff:203.0.113.9").is_none(), "in any spelling");
        assert!(enter("203.0.113.8").is_some());
        all[0].goes_in();
        all[0].goes_in();
        all.push(enter("203.0.113.9").unwrap());
        assert!(enter("203.0.113.9").is_none(), "one went in, one came");
        for open in ["127.0.0.1", "::1", "10.0.0.1"] {
            let many: Vec<_> = (0..1000).map(|_| enter(open).unwrap()).collect();
            drop(many);
        }
        drop(all);
        assert!(entrance.lock().is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_number_that_was_chosen_counts_on_this_machine_too() {
        let entrance = Arc::new(Entrance::new(Some(1), &[]));
        let home = "127.0.0.1".parse().unwrap();
        let first = entrance.enter(home).unwrap();
        assert!(entrance.enter(home).is_none());
        drop(first);
        assert!(entrance.enter(home).is_some());
    }
}
