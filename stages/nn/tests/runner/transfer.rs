//! Start values from files of PyTorch: `tests/reference/pretrained.py` wrote them, with the logits of the module.

use std::collections::BTreeMap;

use pipe_nn::{
    Classifier, CpuBackend, Dims, Element, Fate, Geometry, Io, Model, Network, Parameters, Tensors,
};

use crate::support::assert_close;

fn network(classes: usize) -> Network {
    let classifier = Classifier { levels: 1, base_features: 3, ..Classifier::default() };
    classifier.network(Dims::Two, Io { channels: 1, classes, size: [1, 6, 8] }).expect("valid")
}

/// Parts of the network → parts of PyTorch's module.
fn names() -> BTreeMap<String, String> {
    let pairs = [
        ("stem.conv", "stem.0"),
        ("stem.norm", "stem.1"),
        ("stage.0.block0.conv0", "layer1.conv1"),
        ("stage.0.block0.norm0", "layer1.bn1"),
        ("stage.0.block0.conv1", "layer1.conv2"),
        ("stage.0.block0.norm1", "layer1.bn2"),
        ("head", "fc"),
    ];
    pairs.into_iter().map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).collect()
}

fn file() -> Tensors {
    Tensors::from_safetensors(include_bytes!("../reference/pretrained.safetensors")).expect("readable")
}

#[test]
fn a_module_of_pytorch_gives_the_same_logits_under_our_names() {
    let network = network(2);
    let transfer = file().transfer(&network, &names()).expect("all names are there");
    assert_eq!(transfer.misfits().count(), 0, "{:?}", transfer.misfits().collect::<Vec<_>>());
    assert_eq!((transfer.taken(), network.parameters.len()), (17, 17));
    // Three counters of batch normalisation are left, and no misfits.
    let counters = transfer.rows.iter().filter(|row| row.fate == Fate::NoWeight);
    assert_eq!(counters.count(), 3);
    let expected = Parameters::from_safetensors(include_bytes!("../reference/pretrained_logits.safetensors"))
        .expect("readable");
    let model = Model::from_parameters(CpuBackend::default(), network, &transfer.start).expect("all of it");
    let (_, input) = expected.get("input").expect("an input");
    let logits = model.forward(input, Geometry { samples: 2, size: [1, 6, 8] }).expect("it fits");
    assert_close("logits", &logits, expected.get("logits").expect("logits").1, 2e-6);
}

#[track_caller]
fn misfits(tensors: &Tensors, network: &Network, expected: &[&str]) {
    let transfer = tensors.transfer(network, &names()).expect("all names are there");
    let found: Vec<String> = transfer.misfits().map(ToString::to_string).collect();
    assert_eq!(found, expected);
    let fresh = transfer.rows.iter().filter(|row| row.parameter.is_some() && row.fate != Fate::Taken).count();
    assert_eq!(transfer.start.iter().count() + fresh, network.parameters.len());
}

#[test]
fn what_does_not_fit_is_told_with_both_names_and_shapes() {
    misfits(
        &file(),
        &network(4),
        &[
            "`head.weight` [4, 3] is `module.fc.weight` [2, 3] in the file: another shape",
            "`head.bias` [4] is `module.fc.bias` [2] in the file: another shape",
        ],
    );
    let mut tensors = file();
    let put = |tensors: &mut Tensors, name: &str, shape: &[usize], element, bytes: &[u8]| {
        tensors.insert(format!("module.{name}"), shape.to_vec(), element, bytes).expect("as many as it says");
    };
    put(&mut tensors, "fc.bias", &[2], Element::Other("I64"), &[0; 16]);
    put(&mut tensors, "stem.1.bias", &[3], Element::F16, &[0, 0, 0, 0x7c, 0, 0]);
    put(&mut tensors, "aux.weight", &[1], Element::F32, &[0; 4]);
    misfits(
        &tensors,
        &network(2),
        &[
            "`stem.norm.bias` [3] is `module.stem.1.bias` [3] in the file, which holds NaN or infinity",
            "`head.bias` [2] is `module.fc.bias` [2] in the file, of I64: no weights",
            "`module.aux.weight` [1] of the file is no parameter of the network",
        ],
    );
    let error = tensors.insert("x".into(), vec![2], Element::F64, &[0; 8]).unwrap_err().to_string();
    assert_eq!(error, "tensor `x` is not readable: its shape is [2] but it has 1 numbers");
}

#[track_caller]
fn refused(ours: &str, theirs: &str, expected: &str) {
    let names = [(ours.to_owned(), theirs.to_owned())].into();
    assert_eq!(
        file().transfer(&network(2), &names).expect_err("a name stands nowhere").to_string(),
        expected
    );
}

#[test]
fn a_name_that_stands_nowhere_is_refused() {
    refused(
        "body",
        "layer1",
        "names is `body`, but no parameter lies below that name; the network has stem, stage, head",
    );
    refused(
        "stem",
        "layer9",
        "names is `stem`: `layer9`, but no tensor of the file lies below `layer9`; it has module.fc.bias, \
         module.fc.weight, module.layer1.bn1.bias, module.layer1.bn1.num_batches_tracked, \
         module.layer1.bn1.running_mean, …",
    );
}

#[test]
fn numbers_of_half_the_length_are_read_exactly() {
    let mut tensors = Tensors::default();
    // 1, -2, the largest, the smallest, the smallest that is normal, -0.
    let halves: [u16; 6] = [0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x8000];
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    tensors.insert("head.bias".into(), vec![6], Element::F16, &bytes).unwrap();
    let found = tensors.transfer(&network(6), &BTreeMap::new()).unwrap();
    let expected = [1.0, -2.0, 65504.0, 2.0_f32.powi(-24), 2.0_f32.powi(-14), -0.0];
    assert_eq!(found.start.get("head.bias").unwrap().1, expected);
    tensors.insert("head.bias".into(), vec![2], Element::Bf16, &[0x80, 0x3f, 0x49, 0xc0]).unwrap();
    let found = tensors.transfer(&network(2), &BTreeMap::new()).unwrap();
    assert_eq!(found.start.get("head.bias").unwrap().1, [1.0, -3.140_625]);
}
