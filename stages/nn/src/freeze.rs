//! Which parameters of a network stay as they are: by the beginning of their names, or the first layers.

use crate::NnError;
use crate::network::{Network, Op, ParameterId};

impl Op {
    /// The parameters of the operation.
    fn parameters(&self) -> Vec<ParameterId> {
        match self {
            Self::Conv { weight, bias, .. } | Self::TransposedConv { weight, bias, .. } => {
                [*weight].into_iter().chain(*bias).collect()
            }
            Self::NormAct { scale, shift, running, .. } => {
                [*scale, *shift].into_iter().chain(running.iter().flatten().copied()).collect()
            }
            Self::Activation { slope, .. } => slope.iter().copied().collect(),
            _ => Vec::new(),
        }
    }
}

impl Network {
    /// Marks the parameters whose names begin with one of `prefixes` (at a dot or whole), and those of the first `first`
    /// convolutions in the order that they run, with the norms and slopes behind them.
    ///
    /// # Errors
    /// [`NnError::Config`] for a prefix of no parameter, and when nothing is left to train.
    pub fn frozen(&self, prefixes: &[String], first: usize) -> Result<Vec<bool>, NnError> {
        let refuse = |name, value: String, rule: String| Err(NnError::Config { name, value, rule });
        for prefix in prefixes {
            if !self.has_part(prefix) {
                let rule = format!("no parameter lies below that name; the network has {}", self.parts());
                return refuse("freeze", format!("`{prefix}`"), rule);
            }
        }
        let below = |name: &str| prefixes.iter().any(|prefix| is_below(name, prefix));
        let mut frozen: Vec<bool> = self.parameters.iter().map(|spec| below(&spec.name)).collect();
        let mut convolutions = 0;
        for node in &self.nodes {
            convolutions += usize::from(matches!(node.op, Op::Conv { .. } | Op::TransposedConv { .. }));
            if convolutions <= first {
                node.op.parameters().into_iter().for_each(|id| frozen[id.0] = true);
            }
        }
        if first >= convolutions {
            let rule =
                format!("the network has {convolutions} convolutions, of which one at least must learn");
            return refuse("freeze_first", first.to_string(), rule);
        }
        let learns = |(spec, frozen): (&crate::ParameterSpec, &bool)| spec.role.is_trained() && !frozen;
        if self.parameters.iter().zip(&frozen).any(learns) {
            return Ok(frozen);
        }
        let listed = prefixes.iter().map(|prefix| format!("`{prefix}`")).collect::<Vec<_>>().join(", ");
        refuse("freeze", listed, "that is all of the network, and nothing is left to train".to_owned())
    }

    /// Whether the name of a parameter begins with `prefix`, at a dot or whole.
    pub fn has_part(&self, prefix: &str) -> bool {
        self.parameters.iter().any(|spec| is_below(&spec.name, prefix))
    }

    /// The first words of the names of the parameters, in order.
    pub fn parts(&self) -> String {
        let mut parts: Vec<&str> =
            self.parameters.iter().filter_map(|spec| spec.name.split('.').next()).collect();
        parts.dedup();
        parts.join(", ")
    }
}

/// Whether `name` begins with `prefix`, at a dot or whole.
pub(crate) fn is_below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use crate::network::Dims;
    use crate::{Io, Network, UNet};

    fn network() -> Network {
        let unet = UNet { levels: 2, ..UNet::default() };
        unet.network(Dims::Two, Io { channels: 1, classes: 2, size: [1, 8, 8] }).unwrap()
    }

    #[track_caller]
    fn check(prefixes: &[&str], first: usize, expected: Result<&[&str], &str>) {
        let network = network();
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let found = network.frozen(&prefixes, first).map_err(|error| error.to_string()).map(|frozen| {
            let specs = network.parameters.iter().zip(frozen).filter(|(_, frozen)| *frozen);
            specs.map(|(spec, _)| spec.name.clone()).collect::<Vec<_>>()
        });
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn layers_are_frozen_by_name_and_from_the_first_on() {
        check(&[], 0, Ok(&[]));
        check(&["head"], 0, Ok(&["head.weight", "head.bias"]));
        let first = ["encoder.0.conv0.weight", "encoder.0.norm0.weight", "encoder.0.norm0.bias"];
        check(&[], 1, Ok(&first));
        check(&["encoder.0.norm0"], 1, Ok(&first));
        check(
            &["enc"],
            0,
            Err(
                "freeze is `enc`, but no parameter lies below that name; the network has encoder, decoder, head",
            ),
        );
        // Four convolutions down, the one that rises, two more and the head.
        check(
            &[],
            8,
            Err("freeze_first is 8, but the network has 8 convolutions, of which one at least must learn"),
        );
        let all = "freeze is `encoder`, `decoder`, `head`, but that is all of the network, and nothing is left to train";
        check(&["encoder", "decoder", "head"], 0, Err(all));
    }
}
