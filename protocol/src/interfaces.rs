//! What a wasm task may import and must export: the one list of the interfaces that agents offer, by which a master refuses a module at
//! submit. Knows names and shapes; how they behave is the runtime's.

/// The module name of WASI preview 1.
pub const PREVIEW1: &str = "wasi_snapshot_preview1";
/// What a core module exports to be run.
pub const START: &str = "_start";
/// What a component exports to be run, without its version.
pub const RUN: &str = "wasi:cli/run";

/// The functions of WASI preview 1 (`wasi_snapshot_preview1.witx`): name, parameters, results; `i` is an `i32`, `I` an `i64`. Sorted by
/// name.
pub const PREVIEW1_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("args_get", "ii", "i"),
    ("args_sizes_get", "ii", "i"),
    ("clock_res_get", "ii", "i"),
    ("clock_time_get", "iIi", "i"),
    ("environ_get", "ii", "i"),
    ("environ_sizes_get", "ii", "i"),
    ("fd_advise", "iIIi", "i"),
    ("fd_allocate", "iII", "i"),
    ("fd_close", "i", "i"),
    ("fd_datasync", "i", "i"),
    ("fd_fdstat_get", "ii", "i"),
    ("fd_fdstat_set_flags", "ii", "i"),
    ("fd_fdstat_set_rights", "iII", "i"),
    ("fd_filestat_get", "ii", "i"),
    ("fd_filestat_set_size", "iI", "i"),
    ("fd_filestat_set_times", "iIIi", "i"),
    ("fd_pread", "iiiIi", "i"),
    ("fd_prestat_dir_name", "iii", "i"),
    ("fd_prestat_get", "ii", "i"),
    ("fd_pwrite", "iiiIi", "i"),
    ("fd_read", "iiii", "i"),
    ("fd_readdir", "iiiIi", "i"),
    ("fd_renumber", "ii", "i"),
    ("fd_seek", "iIii", "i"),
    ("fd_sync", "i", "i"),
    ("fd_tell", "ii", "i"),
    ("fd_write", "iiii", "i"),
    ("path_create_directory", "iii", "i"),
    ("path_filestat_get", "iiiii", "i"),
    ("path_filestat_set_times", "iiiiIIi", "i"),
    ("path_link", "iiiiiii", "i"),
    ("path_open", "iiiiiIIii", "i"),
    ("path_readlink", "iiiiii", "i"),
    ("path_remove_directory", "iii", "i"),
    ("path_rename", "iiiiii", "i"),
    ("path_symlink", "iiiii", "i"),
    ("path_unlink_file", "iii", "i"),
    ("poll_oneoff", "iiii", "i"),
    ("proc_exit", "i", ""),
    ("proc_raise", "i", "i"),
    ("random_get", "ii", "i"),
    ("sched_yield", "", "i"),
    ("sock_accept", "iii", "i"),
    ("sock_recv", "iiiiii", "i"),
    ("sock_send", "iiiii", "i"),
    ("sock_shutdown", "ii", "i"),
];

/// The interfaces that components may import, without their versions, and which versions: a version that ends in `.` stands for all
/// that begin with it. Sorted by name.
pub const INTERFACES: &[(&str, &str)] = &[
    ("skep:task/context", "0.1."),
    ("skep:task/messages", "0.1."),
    ("wasi:cli/environment", "0.2."),
    ("wasi:cli/exit", "0.2."),
    ("wasi:cli/stderr", "0.2."),
    ("wasi:cli/stdin", "0.2."),
    ("wasi:cli/stdout", "0.2."),
    ("wasi:cli/terminal-input", "0.2."),
    ("wasi:cli/terminal-output", "0.2."),
    ("wasi:cli/terminal-stderr", "0.2."),
    ("wasi:cli/terminal-stdin", "0.2."),
    ("wasi:cli/terminal-stdout", "0.2."),
    ("wasi:clocks/monotonic-clock", "0.2."),
    ("wasi:clocks/wall-clock", "0.2."),
    ("wasi:config/store", "0.2.0-rc.1"),
    ("wasi:filesystem/preopens", "0.2."),
    ("wasi:filesystem/types", "0.2."),
    ("wasi:io/error", "0.2."),
    ("wasi:io/poll", "0.2."),
    ("wasi:io/streams", "0.2."),
    ("wasi:random/insecure", "0.2."),
    ("wasi:random/insecure-seed", "0.2."),
    ("wasi:random/random", "0.2."),
    ("wasi:sockets/instance-network", "0.2."),
    ("wasi:sockets/ip-name-lookup", "0.2."),
    ("wasi:sockets/network", "0.2."),
    ("wasi:sockets/tcp", "0.2."),
    ("wasi:sockets/tcp-create-socket", "0.2."),
    ("wasi:sockets/udp", "0.2."),
    ("wasi:sockets/udp-create-socket", "0.2."),
];

/// True where `version` is one of `versions`: that very one, or one that begins with it and goes on with a number and no more.
fn is_version_of(version: &str, versions: &str) -> bool {
    if !versions.ends_with('.') {
        return version == versions;
    }
    let last = version.strip_prefix(versions).unwrap_or("");
    !last.is_empty() && last.len() <= 4 && last.bytes().all(|byte| byte.is_ascii_digit())
}

/// True where components may import the interface `name`, as `wasi:cli/stdout@0.2.3`.
#[must_use]
pub fn is_offered(name: &str) -> bool {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let found = INTERFACES.binary_search_by(|(offered, _)| (*offered).cmp(interface));
    found.is_ok_and(|at| is_version_of(version, INTERFACES[at].1))
}

/// True where a component that exports `name` can be run by it.
#[must_use]
pub fn is_run(name: &str) -> bool {
    name.split_once('@').is_some_and(|(interface, version)| interface == RUN && is_version_of(version, "0.2."))
}

/// Parameters and results of a function of WASI preview 1.
#[must_use]
pub fn preview1(name: &str) -> Option<(&'static str, &'static str)> {
    let at = PREVIEW1_FUNCTIONS.binary_search_by(|(offered, _, _)| (*offered).cmp(name)).ok()?;
    Some((PREVIEW1_FUNCTIONS[at].1, PREVIEW1_FUNCTIONS[at].2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_are_sorted_for_the_search() {
        assert!(PREVIEW1_FUNCTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(INTERFACES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(PREVIEW1_FUNCTIONS.iter().all(|(name, _, _)| preview1(name).is_some()));
    }

    #[test]
    fn an_interface_is_offered_in_its_versions_only() {
        let ours = ["skep:task/context@0.1.0", "skep:task/messages@0.1.0"];
        for name in ["wasi:cli/stdout@0.2.0", "wasi:io/streams@0.2.12", "wasi:config/store@0.2.0-rc.1"].into_iter().chain(ours) {
            assert!(is_offered(name), "{name}");
        }
        for name in
            ["wasi:cli/stdout", "wasi:cli/stdout@0.3.0", "wasi:cli/stdout@0.2.", "wasi:cli/stdout@0.2.0-rc", "wasi:nn/graph@0.2.0", "", "@"]
        {
            assert!(!is_offered(name), "{name}");
        }
        assert!(is_run("wasi:cli/run@0.2.3") && !is_run("wasi:cli/run@0.3.0") && !is_run("run"));
    }
}
