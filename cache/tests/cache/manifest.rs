//! The key changes with everything it depends on, and every change has its sentence.

use crate::space::Space;
use pipe_cache::{
    ActionKey, ArtifactType, Digest, DirtyReason, ExternalRecord, InputRecord, Manifest, input_element,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

fn artifact(name: &str, format: u32) -> ArtifactType {
    ArtifactType { name: name.to_owned(), format }
}

fn input(content: &str) -> InputRecord {
    InputRecord { artifact: artifact("volumes", 1), digest: Digest::of_bytes(content.as_bytes()) }
}

fn manifest() -> Manifest {
    Manifest {
        kind: "train".to_owned(),
        version: 3,
        params: json!({ "epochs": 5, "rate": 0.1, "model": { "name": "unet2d", "channels": [16, 32] } }),
        inputs: BTreeMap::from([
            ("volumes".to_owned(), input("v")),
            (input_element("models", 0, "train[fold=0]"), input("m0")),
            (input_element("models", 1, "train[fold=1]"), input("m1")),
        ]),
        external: BTreeMap::from([("from".to_owned(), ExternalRecord { digest: Digest::of_bytes(b"data") })]),
        outputs: BTreeMap::from([("model".to_owned(), artifact("model", 2))]),
        seed: Some(7),
        device: Some("cpu".to_owned()),
        environment: BTreeMap::from([
            ("MODE".to_owned(), Some("fast".to_owned())),
            ("UNSET".to_owned(), None),
        ]),
    }
}

fn empty() -> Manifest {
    Manifest {
        kind: String::new(),
        version: 0,
        params: json!({}),
        inputs: BTreeMap::new(),
        external: BTreeMap::new(),
        outputs: BTreeMap::new(),
        seed: None,
        device: None,
        environment: BTreeMap::new(),
    }
}

#[test]
fn two_keys_are_pinned() {
    // By an encoder in Python written from the doc comments, with the package `blake3` of PyPI.
    // Whoever must edit this invalidates every cache on earth: bump MANIFEST_VERSION and say so in the change log.
    assert_eq!(
        manifest().key().to_string(),
        "ca1f08e75c25dd396e2dfe91c6bb29383d9a5709e597751dd8de62dca5286bd2"
    );
    assert_eq!(empty().key().to_string(), "e17d109ddd3f268dff7abce522ee590aef87f2c005e319c3eb3cceaa8d701f66");
}

/// Applies the edit and checks the sentences that explain it, and that the key moved.
#[track_caller]
fn check(edit: impl FnOnce(&mut Manifest), expected: &[&str]) {
    let (old, mut new) = (manifest(), manifest());
    edit(&mut new);
    let told: Vec<_> = new.diff(&old).iter().map(ToString::to_string).collect();
    assert_eq!(told, expected);
    assert_ne!(new.key(), old.key());
    // And back, so no change is seen in one direction only.
    assert_eq!(old.diff(&new).len(), expected.len());
}

#[test]
fn equal_manifests_have_equal_keys_and_no_reasons() {
    assert_eq!(manifest().key(), manifest().key());
    assert_eq!(manifest().diff(&manifest()), []);
}

#[test]
fn every_change_is_told_in_plain_words() {
    check(|new| new.kind = "tune".to_owned(), &["kind: `train` → `tune`"]);
    check(|new| new.version = 4, &["version of the code: 3 → 4"]);
    check(|new| new.params["epochs"] = json!(6), &["parameter `epochs`: 5 → 6"]);
    check(|new| new.params["epochs"] = json!(5.0), &["parameter `epochs`: 5 → 5.0"]);
    check(
        |new| new.params["model"]["name"] = json!("unet3d"),
        &["parameter `model.name`: \"unet2d\" → \"unet3d\""],
    );
    check(
        |new| new.params["model"]["channels"][1] = json!(64),
        &["parameter `model.channels`: [16,32] → [16,64]"],
    );
    check(|new| new.params["decay"] = json!(null), &["parameter `decay` added: null"]);
    check(
        |new| drop(new.params.as_object_mut().unwrap().remove("rate")),
        &["parameter `rate` removed, was 0.1"],
    );
    check(
        |new| drop(new.inputs.insert("volumes".to_owned(), input("other"))),
        &["input `volumes` changed (fbf712909342 → 3f796163ebf9)"],
    );
    check(|new| drop(new.inputs.insert("split".to_owned(), input("s"))), &["input `split` added"]);
    check(|new| drop(new.inputs.remove("volumes")), &["input `volumes` removed"]);
    check(
        |new| new.inputs.get_mut("volumes").unwrap().artifact = artifact("volumes", 2),
        &["port `volumes`: volumes format 1 → volumes format 2"],
    );
    check(
        |new| new.external.get_mut("from").unwrap().digest = Digest::of_bytes(b"new"),
        &["external files `from` changed (28a249c2e4d3 → b20ab0a020a4)"],
    );
    check(|new| new.external.clear(), &["external files `from` removed"]);
    check(
        |new| drop(new.outputs.insert("model".to_owned(), artifact("model", 3))),
        &["port `model`: model format 2 → model format 3"],
    );
    check(|new| drop(new.outputs.insert("log".to_owned(), artifact("log", 1))), &["output `log` added"]);
    check(|new| new.outputs.clear(), &["output `model` removed"]);
    check(|new| new.seed = Some(8), &["seed: 7 → 8"]);
    check(|new| new.seed = None, &["seed: 7 → none"]);
    check(|new| new.device = Some("cuda".to_owned()), &["device: cpu → cuda"]);
    check(
        |new| drop(new.environment.insert("MODE".to_owned(), Some("slow".to_owned()))),
        &["environment `MODE`: fast → slow"],
    );
    check(|new| drop(new.environment.insert("MODE".to_owned(), None)), &["environment `MODE`: fast → none"]);
    // Declared but not set, or no longer declared: one sentence, two keys.
    check(|new| drop(new.environment.remove("UNSET")), &["environment `UNSET`: none → none"]);
    check(
        |new| {
            new.version = 4;
            new.seed = None;
        },
        &["version of the code: 3 → 4", "seed: 7 → none"],
    );
}

#[track_caller]
fn check_inputs(old: BTreeMap<String, InputRecord>, new: BTreeMap<String, InputRecord>, expected: &[&str]) {
    let [old, new] = [old, new].map(|inputs| Manifest { inputs, ..manifest() });
    let told: Vec<_> = new.diff(&old).iter().map(ToString::to_string).collect();
    assert_eq!(told, expected);
    assert_ne!(old.key(), new.key());
}

#[test]
fn elements_of_a_many_port_are_told_apart_by_label_and_their_order_counts() {
    let elements = |labels: &[(&str, &str)]| -> BTreeMap<String, InputRecord> {
        let elements = labels.iter().enumerate();
        elements.map(|(i, (label, content))| (input_element("models", i, label), input(content))).collect()
    };
    let ten: Vec<(String, String)> = (0..12).map(|i| (format!("train[fold={i}]"), format!("m{i}"))).collect();
    let ten: Vec<(&str, &str)> =
        ten.iter().map(|(label, content)| (label.as_str(), content.as_str())).collect();
    let mut reversed = ten.clone();
    reversed.reverse();
    check_inputs(
        elements(&ten),
        elements(&reversed),
        &["input `models`: same elements in another order, or in other folders"],
    );
    check_inputs(elements(&ten[1..]), elements(&ten), &["input `models` from stage `train[fold=0]` added"]);
    check_inputs(
        elements(&ten),
        elements(&ten[..11]),
        &["input `models` from stage `train[fold=11]` removed"],
    );
    let same_label = [("a", "1"), ("a", "2")];
    check_inputs(elements(&same_label[..1]), elements(&same_label), &["input `models` from stage `a` added"]);
}

#[test]
fn a_manifest_that_was_stored_has_the_same_key_when_it_is_read() {
    let space = Space::new();
    for manifest in [manifest(), empty()] {
        let digest = manifest.put(&space.cache.store).unwrap();
        let read = Manifest::get(&space.cache.store, &digest).unwrap();
        assert_eq!((read.key(), &read), (manifest.key(), &manifest));
    }
}

#[test]
fn a_number_keeps_its_key_through_storage() {
    // f32 params, tiny and large values: JSON text must give back the same bits.
    let space = Space::new();
    for value in [
        json!(0.1f32),
        json!(1e-300),
        json!(f64::MAX),
        json!(5e-324),
        json!(-0.0),
        json!(u64::MAX),
        json!(1.0),
    ] {
        let manifest = Manifest { params: json!({ "value": value }), ..empty() };
        let read = Manifest::get(&space.cache.store, &manifest.put(&space.cache.store).unwrap()).unwrap();
        assert_eq!(read.key(), manifest.key(), "{value}");
    }
}

#[test]
fn a_manifest_of_another_format_or_with_unknown_fields_is_refused() {
    let space = Space::new();
    let store = &space.cache.store;
    let text = String::from_utf8(store.get_bytes(&manifest().put(store).unwrap()).unwrap()).unwrap();
    for wrong in [
        text.replacen("\"format\":1", "\"format\":2", 1),
        text.replacen("\"seed\":7", "\"seed\":7,\"weather\":1", 1),
        text.replacen("\"kind\"", "\"sort\"", 1),
        String::new(),
    ] {
        assert_ne!(wrong, text);
        let digest = store.put_bytes(wrong.as_bytes()).unwrap();
        let error = Manifest::get(store, &digest).unwrap_err();
        assert!(error.to_string().starts_with("a manifest is not readable"), "{error}");
    }
}

#[test]
fn reasons_read_back_from_json() {
    let mut new = manifest();
    new.version = 4;
    new.params["epochs"] = json!(6);
    new.seed = None;
    let mut reasons = new.diff(&manifest());
    reasons.extend([DirtyReason::NeverRan, DirtyReason::Forced, DirtyReason::OutputsMissing]);
    reasons.push(DirtyReason::RecordCorrupt { detail: "it is cut short".to_owned() });
    let text = serde_json::to_string(&reasons).unwrap();
    assert_eq!(serde_json::from_str::<Vec<DirtyReason>>(&text).unwrap(), reasons);
    assert!(text.contains(r#"{"reason":"never-ran"}"#), "{text}");
}

#[test]
fn a_key_is_spelt_like_its_digest() {
    let key = manifest().key();
    assert_eq!(key.to_string().parse::<ActionKey>().unwrap(), key);
    assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{key}\""));
    assert_eq!(BTreeSet::from([key, manifest().key()]).len(), 1);
}
