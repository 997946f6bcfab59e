//! What a task printed, read as files of its sandbox with the operator API.

use super::*;
use base64::Engine as _;

#[test]
fn what_a_task_printed_is_read_as_the_files_of_its_sandbox() {
    let cluster = pool();
    let mesos = cluster.mesos.clone();
    let (mut framework, offer) = Stream::offered(&mesos, "printer");
    framework.launch(&mesos, &offer, &[task("says", "echo to be read; echo not this >&2; sleep 3600")]);
    framework.until_state(&mesos, "says", "TASK_RUNNING");
    let updates = framework.records("UPDATE");
    let container = updates[0]["update"]["status"]["container_status"]["container_id"]["value"].as_str().unwrap();
    for run in ["latest", container] {
        let folder = format!("/frameworks/{}/executors/says/runs/{run}", framework.id);
        let list = json!({ "type": "LIST_FILES", "list_files": { "path": folder } });
        cluster.until("it has printed", |_| operator(&mesos, &list)["list_files"]["file_infos"][0]["size"] == 11);
        let listed = operator(&mesos, &json!({ "type": "LIST_FILES", "list_files": { "path": folder } }));
        let files = &listed["list_files"]["file_infos"];
        assert_eq!((&files[0]["path"], &files[0]["size"]), (&json!(format!("{folder}/stdout")), &json!(11)), "{listed}");
        let call = json!({ "type": "READ_FILE", "read_file": { "path": format!("{folder}/stdout"), "offset": 3, "length": 2 } });
        let read = &operator(&mesos, &call)["read_file"];
        let data = base64::engine::general_purpose::STANDARD.decode(read["data"].as_str().unwrap()).unwrap();
        assert_eq!((data, &read["size"]), (b"be".to_vec(), &json!(11)));
    }
    let none = json!({ "type": "READ_FILE", "read_file": { "path": "/etc/passwd", "offset": 0 } });
    let answer = ask(&mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &none.to_string());
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
