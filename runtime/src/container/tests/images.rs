//! What archives say that they are: layouts and saved images, right and wrong.

use super::*;
use serde_json::{Value, json};

/// The members of an archive of an image; changed, it is a wrong one.
type Members = BTreeMap<String, Vec<u8>>;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn arch() -> &'static str {
    super::super::manifest::architecture()
}

fn put(members: &mut Members, media: &str, bytes: Vec<u8>) -> Value {
    let digest = super::super::Digest::of(&bytes);
    let size = bytes.len();
    members.insert(format!("blobs/sha256/{digest}"), bytes);
    json!({ "mediaType": media, "digest": format!("sha256:{digest}"), "size": size })
}

fn one_layer() -> Vec<u8> {
    ended(&[file("etc/os-release", b"ID=test\n")])
}

fn id(layer: &[u8]) -> String {
    format!("sha256:{}", super::super::Digest::of(layer))
}

fn config(layers: &[Vec<u8>]) -> Value {
    let ids: Vec<_> = layers.iter().map(|layer| id(layer)).collect();
    json!({ "os": "linux", "architecture": arch(), "config": { "Cmd": ["/bin/sh"] }, "rootfs": { "type": "layers", "diff_ids": ids } })
}

/// A layout of one image; `change` may make it a wrong one: the configuration before its digest is taken, then the manifest, then the index.
fn layout(change: impl Fn(&str, &mut Value)) -> Members {
    let mut members = Members::from([("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
    let layer = one_layer();
    let mut config = config(std::slice::from_ref(&layer));
    change("config", &mut config);
    let config = put(&mut members, "application/vnd.oci.image.config.v1+json", config.to_string().into());
    let layer = put(&mut members, TAR, layer);
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    change("manifest", &mut manifest);
    let mut index = json!({ "schemaVersion": 2, "manifests": [put(&mut members, MANIFEST, manifest.to_string().into())] });
    change("index", &mut index);
    members.insert("index.json".into(), index.to_string().into());
    members
}

fn archived(members: &Members) -> Vec<u8> {
    ended(&members.iter().map(|(name, bytes)| file(name, bytes)).collect::<Vec<_>>())
}

fn unpack_members(members: &Members) -> Result<Unpacked, UnpackError> {
    Place::new().unpack(&archived(members), Wanted::Image, &Limits::default())
}

fn refused(what: &str, members: &Members, words: &str) {
    match unpack_members(members) {
        Err(UnpackError::Refused(said) | UnpackError::Limit(said)) => assert!(said.contains(words), "{what}: {said}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn an_image_of_a_layout_is_found() {
    let place = Place::new();
    let found = place.unpack(&archived(&layout(|_, _| {})), Wanted::Image, &Limits::default()).unwrap();
    let Unpacked::Image { config, layers } = found else { panic!("{found:?}") };
    assert_eq!((config.command.as_slice(), layers.len()), (["/bin/sh".to_owned()].as_slice(), 1));
    let os = place.target().join("layers").join(layers[0].id.to_string()).join("etc/os-release");
    assert_eq!(fs::read(os).unwrap(), b"ID=test\n");
    // As somebody packs a layout by hand, and as a whole.
    let with_dots: Vec<_> = layout(|_, _| {}).iter().map(|(name, bytes)| file(&format!("./{name}"), bytes)).collect();
    for packed in [ended(&with_dots), gzip(&ended(&with_dots)), zstd(&ended(&with_dots))] {
        Place::new().unpack(&packed, Wanted::Image, &Limits::default()).unwrap();
    }
}

/// What is changed, in which part, where (a JSON pointer, RFC 6901) and to what; and what is said of it.
type Wrong = (&'static str, &'static str, &'static str, Value, &'static str);

fn check_wrong(cases: Vec<Wrong>) {
    for (what, wanted, pointer, new, words) in cases {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let members = layout(|part, value| {
            if part == wanted {
                value.pointer_mut(parent).unwrap()[name] = new.clone();
            }
        });
        refused(what, &members, words);
    }
}

#[test]
fn a_configuration_that_is_not_right_says_what_is_wrong() {
    let (x, y) = (id(b"x"), id(b"y"));
    check_wrong(vec![
        ("no rootfs", "config", "/rootfs", Value::Null, "no `rootfs.diff_ids`"),
        ("no diffIDs", "config", "/rootfs", json!({}), "no `rootfs.diff_ids`"),
        ("no layers", "config", "/rootfs/diff_ids", json!([]), "an image without layers"),
        ("many layers", "config", "/rootfs/diff_ids", json!(vec![&x; 128]), "128 layers; at most 127"),
        ("more diffIDs", "config", "/rootfs/diff_ids", json!([x, y]), "1 layers, and its configuration names 2"),
        ("another diffID", "config", "/rootfs/diff_ids", json!([x]), "layer 1 (2d711642"),
        ("a diffID of another kind", "config", "/rootfs/diff_ids", json!(["sha512:0"]), "sha512:0"),
        ("another system", "config", "/os", json!("windows"), "an image for \"windows/"),
        ("another machine", "config", "/architecture", json!("s390x"), "\"linux/s390x\""),
        ("a signal", "config", "/config/StopSignal", json!("SIGNO"), "no signal \"SIGNO\""),
        ("a NUL", "config", "/config/Cmd", json!(["a\0b"]), "a NUL in it"),
        ("a text as a list", "config", "/config/Cmd", json!("sh"), "configuration is not what it should be"),
    ]);
}

#[test]
fn a_manifest_that_is_not_right_says_what_is_wrong() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let outside = json!("sha256:../../../etc/passwd");
    let mut layers = layout(|_, _| {});
    let first = put(&mut layers, TAR, one_layer());
    let with = |field: &str, value: Value| {
        let mut layer = first.clone();
        layer[field] = value;
        json!([layer])
    };
    let media = |media: &str| with("mediaType", json!(media));
    let wasm = "application/vnd.wasm.config.v0+json";
    check_wrong(vec![
        ("an unknown layer", "manifest", "/layers", media("text/x"), "layer 1: it is of type \"text/x\""),
        ("a foreign layer", "manifest", "/layers", media(foreign), "a foreign layer"),
        ("an encrypted layer", "manifest", "/layers", media(&format!("{TAR}+gzip+encrypted")), "it is encrypted"),
        ("a wrong size", "manifest", "/layers", with("size", json!(7)), "bytes and should have 7"),
        ("a blob that is not there", "manifest", "/layers", with("digest", json!(id(b"x"))), "is not in it"),
        ("a digest that leads out", "manifest", "/layers", with("digest", outside.clone()), "is no SHA-256 digest"),
        ("the configuration's too", "manifest", "/config/digest", outside, "is no SHA-256 digest"),
        (
            "no image",
            "manifest",
            "/config/mediaType",
            json!(wasm),
            "no container image: its configuration is of type \"application/vnd.wasm",
        ),
        ("no layers at all", "manifest", "/layers", Value::Null, "is not what it should be"),
        ("nothing", "index", "/manifests", json!([]), "its index is empty"),
    ]);
    let other = layout(|part, value| {
        if part == "index" {
            value["manifests"][0]["mediaType"] = json!("text/x")
        }
    });
    refused("something else", &other, "\"text/x\"");
}

#[test]
fn archives_without_an_image_say_so() {
    let right = layout(|_, _| {});
    let with = |name: &str, bytes: &[u8]| {
        let mut members = right.clone();
        members.insert(name.into(), bytes.to_vec());
        members
    };
    let without = |name: &str| {
        let mut members = right.clone();
        members.remove(name);
        members
    };
    refused("a bundle", &Members::from([("bin/x".into(), vec![])]), "it holds no image");
    refused("a later version", &with("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#), "version \"2.0.0\"");
    refused("no JSON", &with("index.json", b"\x1b[2J"), "index.json is not what it should be");
    refused("deep JSON", &with("index.json", &[b'['; 100_000]), "index.json is not what it should be");
    refused("no index", &without("index.json"), "\"index.json\" is not in it");
    refused("long JSON", &with("index.json", &vec![b' '; 5 << 20]), "at most 4194304 are read");
    for (name, bytes) in right.iter().filter(|(name, _)| name.starts_with("blobs/")) {
        let mut other = bytes.clone();
        other[0] ^= 1;
        assert!(unpack_members(&with(name, &other)).is_err(), "a changed blob");
        assert!(unpack_members(&without(name)).is_err(), "a missing blob");
    }
    let twice = ended(&[file("index.json", b""), archived(&right)]);
    let error = Place::new().unpack(&twice, Wanted::Image, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("two members"), "{error}");
    let whole = archived(&right);
    let error = Place::new().unpack(&whole[..whole.len() - 1_024], Wanted::Image, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("it was cut"), "{error}");
}

#[test]
fn of_many_platforms_this_one_is_taken() {
    let platform = |value: &mut Value, os: &str, arch: &str, variant: &str| {
        value["platform"] = json!({ "os": os, "architecture": arch, "variant": variant });
    };
    let here = |value: &mut Value| {
        let mut ours = value["manifests"][0].clone();
        platform(&mut ours, "linux", arch(), "");
        let mut newer = ours.clone();
        platform(&mut newer, "linux", arch(), "v9");
        newer["digest"] = json!(id(b"not there"));
        let mut other = newer.clone();
        platform(&mut other, "linux", "s390x", "");
        let mut note = newer.clone();
        platform(&mut note, "unknown", "unknown", "");
        value["manifests"] = json!([note, newer, other, ours]);
    };
    unpack_members(&layout(|part, value| {
        if part == "index" {
            here(value)
        }
    }))
    .unwrap();
    let elsewhere = layout(|part, value| {
        if part == "index" {
            platform(&mut value["manifests"][0], "linux", "s390x", "")
        }
    });
    refused("another machine's", &elsewhere, "no image for linux/");
    let two = layout(|part, value| {
        if part == "index" {
            let mut second = value["manifests"][0].clone();
            second["digest"] = json!(id(b"another"));
            value["manifests"].as_array_mut().unwrap().push(second);
        }
    });
    refused("two images", &two, "holds 2 images");
    // Indexes within indexes, as builders for many platforms write them.
    let mut members = layout(|_, _| {});
    for depth in 0..6 {
        let inner = members["index.json"].clone();
        let index = json!({ "schemaVersion": 2, "manifests": [put(&mut members, INDEX, inner)] });
        members.insert("index.json".into(), index.to_string().into());
        match unpack_members(&members) {
            Ok(_) => assert!(depth < 4),
            Err(error) => assert!(depth >= 4 && error.to_string().contains("indexes within each other"), "{depth}: {error}"),
        }
    }
}

/// What `docker save` writes, with its layers in folders of their own; `names` are those of the layers.
fn saved(config: &Value, names: &[&str]) -> (Members, Value) {
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", super::super::Digest::of(&config));
    let manifest = json!([{ "Config": name, "RepoTags": ["test:1"], "Layers": names }]);
    (Members::from([(name, config), ("manifest.json".into(), manifest.to_string().into())]), manifest)
}

#[test]
fn saved_images_are_found() {
    let (first, second) = (one_layer(), ended(&[file("b", b"b")]));
    let (mut members, manifest) = saved(&config(&[first.clone(), second.clone()]), &["1/layer.tar", "2/layer.tar"]);
    members.insert("1/layer.tar".into(), first.clone());
    members.insert("2/layer.tar".into(), gzip(&second));
    let Unpacked::Image { layers, .. } = unpack_members(&members).unwrap() else { panic!() };
    assert_eq!(layers.iter().map(|layer| format!("sha256:{}", layer.id)).collect::<Vec<_>>(), [id(&first), id(&second)]);
    refused(
        "without a layer",
        &members.iter().filter(|(name, _)| *name != "2/layer.tar").map(|(k, v)| (k.clone(), v.clone())).collect(),
        "layer 2",
    );
    let name = manifest[0]["Config"].as_str().unwrap();
    let mut other = members.clone();
    other.get_mut(name).unwrap().push(b' ');
    refused("another configuration", &other, "is not what its digest says");
    let both = json!([manifest[0], manifest[0]]).to_string();
    let mut two = members.clone();
    two.insert("manifest.json".into(), both.into());
    refused("two images", &two, "holds 2 images (\"test:1, test:1\")");
    two.insert("manifest.json".into(), b"[]".to_vec());
    refused("none", &two, "holds 0 images");
    // One that is no list is somebody's own file.
    two.insert("manifest.json".into(), b"{}".to_vec());
    refused("no list", &two, "manifest.json is not what it should be");
}

#[test]
fn layers_that_are_links_in_an_archive_are_followed_within_it() {
    let layer = one_layer();
    let (members, _) = saved(&config(&[layer.clone(), layer.clone()]), &["1/layer.tar", "2/layer.tar"]);
    let with = |links: &[Vec<u8>]| {
        let mut entries: Vec<_> = members.iter().map(|(name, bytes)| file(name, bytes)).collect();
        entries.extend_from_slice(links);
        Place::new().unpack(&ended(&entries), Wanted::Image, &Limits::default())
    };
    let Unpacked::Image { layers, .. } = with(&[file("1/layer.tar", &layer), symlink("2/layer.tar", "../1/layer.tar")]).unwrap() else {
        panic!()
    };
    assert_eq!(layers.len(), 1, "the same layer is stacked once");
    with(&[file("1/layer.tar", &layer), hard_link("2/layer.tar", "1/layer.tar")]).unwrap();
    for away in ["../../etc/passwd", "/etc/passwd", "../2/layer.tar"] {
        let error = with(&[file("1/layer.tar", &layer), symlink("2/layer.tar", away)]).unwrap_err();
        assert!(error.to_string().contains("is not in it"), "{away}: {error}");
    }
}

#[test]
fn the_same_layer_twice_is_stacked_where_it_was_last() {
    let (a, b) = (one_layer(), ended(&[file("b", b"b")]));
    let archive = build::image("test", &[a.clone(), b.clone(), a.clone()], &ImageConfig::default());
    let Unpacked::Image { layers, .. } = Place::new().unpack(&archive, Wanted::Image, &Limits::default()).unwrap() else { panic!() };
    assert_eq!(layers.iter().map(|layer| format!("sha256:{}", layer.id)).collect::<Vec<_>>(), [id(&b), id(&a)]);
    assert!(layers.iter().all(|layer| layer.about.is_some()));
}

#[test]
fn known_layers_are_not_unpacked_again() {
    let place = Place::new();
    let known = super::super::Digest::of(&one_layer());
    fs::write(place.0.join("archive"), build::image("test", &[one_layer()], &ImageConfig::default())).unwrap();
    let target = File::open(place.target()).unwrap();
    let archive = File::open(place.0.join("archive")).unwrap();
    let found = unpack(&archive, target.as_fd(), Wanted::Image, &[known], &Limits::default()).unwrap();
    let Unpacked::Image { layers, .. } = found else { panic!() };
    assert_eq!(layers, [super::super::LayerUsed { id: known, about: None }]);
    assert_eq!(fs::read_dir(place.target().join("layers")).unwrap().count(), 0);
}

#[test]
fn all_layers_together_are_bounded_too() {
    let layers: Vec<_> = (0..4).map(|at| ended(&[file("x", &vec![at; 400_000])])).collect();
    let archive = build::image("test", &layers, &ImageConfig::default());
    let limits = Limits { bytes_max: 1 << 20, layer_bytes_max: 512 << 10, ..Limits::default() };
    match Place::new().unpack(&archive, Wanted::Image, &limits) {
        Err(UnpackError::Limit(said)) => assert!(said.starts_with("layer 3 ("), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_is_built_of_the_same_bytes_each_time() {
    let items = [Item::folder("bin", 0o755), Item::file("bin/a", 0o755, b"a"), Item::symlink("bin/b", "a")];
    let settings = ImageConfig {
        user: "1:2".into(),
        dir: "/bin".into(),
        stop_signal: Some(10),
        ports: vec![(80, super::super::Transport::Tcp)],
        ..ImageConfig::default()
    };
    let first = image(&[&items, &[Item::file("c", 0o600, b"c")]], &settings);
    assert_eq!(first, image(&[&items, &[Item::file("c", 0o600, b"c")]], &settings));
    let Unpacked::Image { config, layers } = Place::new().unpack(&first, Wanted::Image, &Limits::default()).unwrap() else { panic!() };
    assert_eq!((config, layers.len()), (settings, 2));
    for path in ["/abs", "../x"] {
        assert!(build::layer(&[Item::file(path, 0o644, b"")]).is_err(), "{path}");
    }
}
