//! Fenced tasks, whose executors end them when nobody renews their leases.

use super::*;
use crate::executor::lease::boot_ns;

const SECOND_NS: u64 = 1_000_000_000;
/// Does not stop because it is asked to.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & while :; do wait; done";

#[tokio::test]
async fn a_fenced_task_is_killed_when_its_lease_is_over_though_nobody_is_there() {
    let scene = Scene::new().await;
    let until = boot_ns() + SECOND_NS;
    drop(scene.0.start_fenced(&script(&scene, 1, STUBBORN), until).await.unwrap());
    let ended = loop {
        match recover(&scene.dir(1)).await.unwrap() {
            Recovered::Living(executor) if executor.held.ended.is_empty() => tokio::task::yield_now().await,
            Recovered::Living(executor) => break executor.held.ended,
            Recovered::Dead(remains) => break remains.ended,
        }
    };
    assert!(boot_ns() >= until);
    assert!(matches!(&ended[..], [(Key(1), Exit::LeaseOver, _)]), "{ended:?}");
    scene.clear(1).await;
}

#[tokio::test]
async fn a_fenced_task_runs_on_while_it_is_renewed_and_never_begins_when_its_lease_is_over() {
    let scene = Scene::new().await;
    let soon = boot_ns() + SECOND_NS;
    let mut executor = scene.0.start_fenced(&script(&scene, 1, STUBBORN), soon).await.unwrap();
    executor.commands.renew(vec![Key(1)], soon + 2 * SECOND_NS);
    executor.commands.renew(vec![Key(1)], soon); // What came late takes nothing back.
    executor.commands.flush().await.unwrap();
    assert_eq!(end(&mut executor).await.0, Exit::LeaseOver);
    assert!(boot_ns() >= soon + 2 * SECOND_NS);

    let mut executor = scene.0.start_fenced(&script(&scene, 2, "echo it began"), boot_ns()).await.unwrap();
    let exit = match executor.held.ended.first() {
        Some((_, exit, _)) => exit.clone(),
        None => end(&mut executor).await.0,
    };
    assert_eq!((exit, printed(&scene, 2).as_str()), (Exit::LeaseOver, ""));
    for key in [1, 2] {
        scene.clear(key).await;
    }
}
