//! A service whose tasks do as they are told, or as chance will have it: whatever the rules, what is promised holds, and all comes to its end.

use super::*;

/// How a task of the model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Ready { new: bool },
    Begins { new: bool },
    Waits { new: bool },
    Stops,
    Gone,
}

struct Model {
    rules: Rules,
    tasks: Vec<Task>,
    extra: u32,
    draw: u64,
}

impl Model {
    fn new(rules: Rules, draw: u64) -> Self {
        Self { rules, tasks: vec![Task::Ready { new: false }; rules.count as usize], extra: 0, draw }
    }

    fn chance(&mut self, of: u64) -> bool {
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.draw >> 33).is_multiple_of(of)
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts { extra: self.extra, ..Counts::default() };
        for (index, task) in self.tasks.iter().enumerate() {
            let over = index >= self.rules.count as usize;
            match task {
                Task::Ready { new: true } => (counts.new, counts.new_ready) = (counts.new + 1, counts.new_ready + 1),
                Task::Ready { new: false } => counts.old_ready += 1,
                Task::Begins { new: true } | Task::Waits { new: true } => counts.new += 1,
                Task::Begins { new: false } => counts.old_unready += 1,
                Task::Waits { new: false } => counts.old_waiting += 1,
                Task::Stops => counts.stopping += 1,
                Task::Gone => {}
            }
            counts.extra_ready += u32::from(over && matches!(task, Task::Ready { .. }));
            assert!(!over || !matches!(task, Task::Ready { new: false } | Task::Begins { new: false }), "forward, none of the old is over");
        }
        counts
    }

    /// Takes a step; true where there was something to do.
    fn step(&mut self, proved: bool) -> bool {
        let (before, counts) = (self.counts().ready(), self.counts());
        let step = self.rules.step(&counts, proved);
        if step == Step::default() {
            return false;
        }
        if let Some(extra) = step.extra {
            let total = (self.rules.count + extra) as usize;
            for task in self.tasks.iter_mut().skip(total).filter(|task| **task != Task::Gone) {
                *task = if matches!(task, Task::Waits { .. }) { Task::Gone } else { Task::Stops };
            }
            let begins = total.max(self.tasks.len());
            self.tasks.resize(begins, Task::Waits { new: true });
            for task in self.tasks.iter_mut().take(total).filter(|task| **task == Task::Gone) {
                *task = Task::Waits { new: true };
            }
            self.extra = extra;
        }
        let mut each = |which: Task, becomes: Task, n: u32| {
            let mut left = n;
            for task in self.tasks.iter_mut().filter(|task| **task == which) {
                if left > 0 {
                    (*task, left) = (becomes, left - 1);
                }
            }
            assert_eq!(left, 0, "a step over what there is: {step:?}");
        };
        each(Task::Waits { new: false }, Task::Waits { new: true }, step.turn);
        each(Task::Begins { new: false }, Task::Stops, step.stop_unready);
        each(Task::Ready { new: false }, Task::Stops, step.stop_ready);
        let (after, rules) = (self.counts(), self.rules);
        let ended = before - after.ready();
        assert!(ended == 0 || after.ready() >= rules.floor, "fewer do their work than promised, by our own doing: {step:?} {after:?}");
        let all = after.new + after.old();
        assert!(all <= rules.count + rules.over, "{all} are more than the count and what may be over");
        assert!(rules.canary.is_none_or(|canary| after.new + after.stopping <= canary.max(counts.new + counts.stopping)), "{step:?}");
        true
    }

    /// Something happens to the tasks.
    fn pass(&mut self, wild: bool) {
        for at in 0..self.tasks.len() {
            let over = at >= (self.rules.count + self.extra) as usize;
            let (slow, breaks) = (self.chance(3), wild && self.chance(20));
            self.tasks[at] = match self.tasks[at] {
                Task::Stops if over => Task::Gone,
                Task::Stops => Task::Waits { new: true },
                Task::Waits { new } if !slow => Task::Begins { new },
                Task::Begins { new } if !slow => Task::Ready { new },
                Task::Ready { new } if breaks => Task::Waits { new },
                other => other,
            };
        }
    }
}

fn rules(count: u32, draw: u64) -> Rules {
    let blue_green = draw.is_multiple_of(7);
    let parallel = if blue_green { count.max(1) } else { 1 + (draw / 7) as u32 % 5 };
    let floor = if blue_green { count } else { (draw / 35) as u32 % (count + 1) };
    let over = if blue_green { count } else { (draw / 400) as u32 % (count + 1) };
    let over = if over == 0 && floor == count { 1 } else { over };
    Rules { count, floor, over, parallel, canary: None, blue_green }
}

#[test]
fn whatever_the_rules_what_is_promised_holds_and_it_comes_to_its_end() {
    let mut draw = 1_u64;
    for _ in 0..3_000 {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let rules = rules((draw >> 40) as u32 % 9, draw >> 20);
        let mut model = Model::new(rules, draw);
        let mut rounds = 0;
        while !rules.is_complete(&model.counts()) {
            while model.step(rounds > 3) {}
            // It does not go wrong for ever.
            model.pass(rounds < 100);
            rounds += 1;
            assert!(rounds < 1_000, "{rules:?} never ends: {:?}", model.counts());
        }
        assert!(model.tasks.iter().take(rules.count as usize).all(|task| *task == Task::Ready { new: true }));
    }
}

#[test]
fn a_canary_stays_alone_until_somebody_says_otherwise() {
    for (over, floor) in [(0, 4), (0, 2), (2, 5), (5, 5)] {
        let rules = Rules { count: 5, floor, over, parallel: 3, canary: Some(2), blue_green: false };
        let mut model = Model::new(rules, 7);
        for _ in 0..100 {
            while model.step(true) {}
            model.pass(false);
        }
        assert!(rules.waits(&model.counts()), "{:?}", model.counts());
        assert_eq!(model.counts().new, 2);
        model.rules.canary = None;
        for _ in 0..100 {
            while model.step(true) {}
            model.pass(false);
        }
        assert!(model.rules.is_complete(&model.counts()), "{:?}", model.counts());
    }
}

#[test]
fn until_the_first_have_proved_themselves_no_others_follow() {
    let rules = Rules { count: 10, floor: 0, over: 0, parallel: 2, canary: None, blue_green: false };
    let first = Counts { old_ready: 8, new: 2, new_ready: 2, ..Counts::default() };
    assert_eq!(rules.step(&first, false), Step::default());
    assert_eq!(rules.step(&first, true), Step { stop_ready: 2, ..Step::default() });
    // What is not known to do its work is not held to be idle, nor ended for it.
    let unknown = Counts { old_unknown: 8, new: 2, new_ready: 2, ..Counts::default() };
    assert_eq!(rules.step(&unknown, true), Step::default());
}

#[test]
fn on_the_way_back_what_never_did_its_work_goes_first_and_what_is_over_goes_at_once() {
    let rules = Rules { count: 3, floor: 3, over: 1, parallel: 1, canary: None, blue_green: false };
    // The new one beside three old ones never did its work: it goes, and nothing else happens.
    let beside = Counts { new: 3, new_ready: 3, old_unready: 1, extra: 1, extra_old: 1, ..Counts::default() };
    assert_eq!(rules.step(&beside, true), Step { extra: Some(0), ..Step::default() });
    let waits = Counts { new: 2, new_ready: 2, old_waiting: 1, ..Counts::default() };
    assert_eq!(rules.step(&waits, true).extra, Some(1));
    let waits = Counts { new: 3, new_ready: 3, old_waiting: 1, extra: 1, extra_ready: 1, ..Counts::default() };
    assert_eq!(rules.step(&waits, true), Step { turn: 1, ..Step::default() });
}
