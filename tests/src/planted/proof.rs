//! How a planted bug is found.

/// The test that must find a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The kills of relay and agents.
    Kills,
    /// The power cuts.
    PowerCuts,
    /// The hostile requests.
    Hostile,
    /// What is left in the files of what was erased.
    Erasure,
    /// A benchmark, of which one figure must miss its goal by more than a fifth.
    Figure {
        /// Whether it starts a relay; otherwise it measures the queue in its own process.
        of_relay: bool,
        /// The benchmark, as `./x bench` calls it.
        bench: &'static str,
        /// The beginning of the figure's name.
        named: &'static str,
    },
    /// Tests of one package whose paths contain `named`.
    Tests {
        /// The package, without `hearth-`.
        of: &'static str,
        /// `--lib`, or for example `--test=it`.
        kind: &'static str,
        /// A part of their paths.
        named: &'static str,
        /// The test that must fail; others may.
        by: &'static str,
    },
}

/// A unit test.
pub(super) const fn unit(of: &'static str, named: &'static str, by: &'static str) -> Proof {
    let kind = "--lib";
    Proof::Tests {
        of,
        kind,
        named,
        by,
    }
}

/// A test of the relay through HTTP.
pub(super) const fn through_http(named: &'static str, by: &'static str) -> Proof {
    let (of, kind) = ("relay", "--test=it");
    Proof::Tests {
        of,
        kind,
        named,
        by,
    }
}

/// The random operations on the queue, compared with its plain model.
pub(super) const OPERATIONS: Proof = Proof::Tests {
    of: "queue",
    kind: "--test=operations",
    named: "the_queue_does",
    by: "the_queue_does_what_the_plain_words_say",
};

/// A figure of the queue alone.
pub(super) const fn of_queue(bench: &'static str, named: &'static str) -> Proof {
    let of_relay = false;
    Proof::Figure {
        of_relay,
        bench,
        named,
    }
}

/// A figure of a relay.
pub(super) const fn of_relay(bench: &'static str, named: &'static str) -> Proof {
    let of_relay = true;
    Proof::Figure {
        of_relay,
        bench,
        named,
    }
}
