//! Curves as a file of events that TensorBoard reads: records of protobuf messages, each with its length and checksums.
//! Times are the numbers of epochs, so that the same training writes the same bytes.
//!
//! Format: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto.

use super::TrainingLog;

/// The bytes of the file.
pub(super) fn of(log: &TrainingLog) -> Vec<u8> {
    let mut file = Vec::new();
    // Field 3 of an event: the version of the format, which must come first.
    record(&mut file, &[double(1, 0.0), text(3, "brain.Event:2")].concat());
    for row in &log.rows {
        let curves = [
            ("loss/training", Some(row.loss)),
            ("loss/validation", row.validation_loss),
            ("learning_rate", Some(row.learning_rate)),
            ("gradient_norm", Some(row.gradient_norm)),
            ("validation/dice", row.validation_dice),
            ("validation/accuracy", row.validation_accuracy),
            ("validation/auc", row.validation_auc),
        ];
        for (tag, value) in curves {
            if let Some(value) = value {
                record(&mut file, &scalar(row.epoch, tag, value));
            }
        }
        for dice in log.dice.iter().filter(|dice| dice.epoch == row.epoch) {
            if let Some(value) = dice.dice {
                record(&mut file, &scalar(row.epoch, &format!("dice/{} {}", dice.label, dice.name), value));
            }
        }
        for layer in log.layers.iter().filter(|layer| layer.epoch == row.epoch) {
            let quantity = match layer.quantity {
                pipe_nn::Quantity::Activation => "activation",
                pipe_nn::Quantity::Gradient => "gradient",
            };
            for (what, value) in [("mean", layer.mean), ("variance", layer.variance)] {
                record(&mut file, &scalar(row.epoch, &format!("{quantity} {what}/{}", layer.layer), value));
            }
        }
    }
    file
}

/// An event with one number: fields 1 (time), 2 (step), 5 (summary of one value: tag, number).
fn scalar(epoch: usize, tag: &str, value: f64) -> Vec<u8> {
    let number = [vec![key(2, 5)], (value as f32).to_le_bytes().to_vec()].concat();
    let value = message(1, &[text(1, tag), number].concat());
    let step = [vec![key(2, 0)], varint(epoch as u64)].concat();
    [double(1, epoch as f64), step, message(5, &value)].concat()
}

/// Length, its checksum, content, its checksum.
fn record(file: &mut Vec<u8>, content: &[u8]) {
    let length = (content.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked_checksum(&length).to_le_bytes());
    file.extend(content);
    file.extend(masked_checksum(content).to_le_bytes());
}

/// A field's number and how it is written (0 varint, 1 eight bytes, 2 with its length, 5 four bytes).
fn key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [vec![key(field, 1)], value.to_le_bytes().to_vec()].concat()
}

fn text(field: u8, value: &str) -> Vec<u8> {
    message(field, value.as_bytes())
}

fn message(field: u8, content: &[u8]) -> Vec<u8> {
    [vec![key(field, 2)], varint(content.len() as u64), content.to_vec()].concat()
}

/// Seven bits a byte, least first; the top bit says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// CRC-32C, turned and shifted as the format asks.
fn masked_checksum(bytes: &[u8]) -> u32 {
    checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: the files are small.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(sum & 1));
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_has_its_published_values() {
        // RFC 3720, B.4.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_record_is_written_as_tensorboard_reads_it() {
        // What tensorboard.summary.writer.record_writer (TensorBoard 2.21) writes for the same event.
        let mut file = Vec::new();
        record(&mut file, &scalar(300, "loss", 0.5));
        let expected =
            "1b000000000000001a0d9e13090000000000c0724010ac022a0d0a0b0a046c6f7373150000003f27554a2e";
        assert_eq!(file.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }
}
