//! What a task is told of its devices: in its environment, and tasks that have the same ones together.

use protocol::devices::numbers;
use protocol::message::Launch;
use protocol::{Given, Member};
use std::collections::BTreeMap;

/// The kind of device of which libraries look for the numbers under names of their own.
const GPU: &str = "gpu";
const GPU_NAMES: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];

/// The variables by which a member of a task learns which devices of the kinds that it asked for the task has: `SKEP_DEVICE_GPU=0,2`. Those that the job sets
/// itself are left out.
pub(super) fn environment(launch: &Launch, member: &Member, given: &Given) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for (device, mask) in given.named(&launch.template.resources).filter(|(device, _)| member.resources.device(&device.name) > 0) {
        let numbers: Vec<String> = numbers(mask).map(|number| number.to_string()).collect();
        let own = format!("SKEP_DEVICE_{}", device.name.as_str().to_uppercase().replace('-', "_"));
        let others = if device.name.as_str() == GPU { &GPU_NAMES[..] } else { &[] };
        for name in std::iter::once(own).chain(others.iter().map(ToString::to_string)) {
            if !member.env.iter().any(|(known, _)| *known == name) {
                env.push((name, numbers.join(",")));
            }
        }
    }
    env
}

/// An attempt, and its ports.
type Attempt<'a> = (&'a (u32, u32), &'a Vec<u16>);

/// The attempts of a launch, by the devices that they have; `given` is empty where none has any.
pub(super) fn alike<'a>(launch: &'a Launch, ports: &'a [Vec<u16>], given: &'a [Given]) -> BTreeMap<Given, Vec<Attempt<'a>>> {
    let mut alike: BTreeMap<Given, Vec<_>> = BTreeMap::new();
    for (at, attempt) in launch.attempts.iter().zip(ports).enumerate() {
        alike.entry(given.get(at).cloned().unwrap_or_default()).or_default().push(attempt);
    }
    alike
}
