//! A 16550 serial port without interrupts: what the guest prints is kept, what the host types is
//! read by polling. It owns no file and no terminal.

use std::collections::VecDeque;

use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{DecodeError, EncodeError, SectionKind};

/// First port of COM1.
pub(crate) const COM1: u16 = 0x3f8;

/// Bytes of output that are kept: the last ones.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Bytes that the host may type ahead.
pub(crate) const INPUT_BYTES_MAX: usize = 1024;

const DATA: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
const INTERRUPT_IDENTITY: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
const MODEM_STATUS: u8 = 6;
const SCRATCH: u8 = 7;

/// Line control: registers 0 and 1 are the divisor.
const DIVISOR_LATCH: u8 = 0x80;
/// Line status: a byte has arrived.
const DATA_READY: u8 = 0x01;
/// Line status: nothing is waiting to be sent.
const SENDER_EMPTY: u8 = 0x60;
/// Modem status: carrier, data set ready, clear to send.
const MODEM_READY: u8 = 0xb0;
/// Interrupt identity: none pending, FIFOs on.
const NO_INTERRUPT: u8 = 0xc1;

/// The registers that a guest can tell the port by; all that travels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SerialState {
    /// Interrupt enable register.
    pub(crate) interrupt_enable: u8,
    /// Line control register.
    pub(crate) line_control: u8,
    /// Modem control register.
    pub(crate) modem_control: u8,
    /// Scratch register.
    pub(crate) scratch: u8,
    /// Divisor of the baud rate.
    pub(crate) divisor: u16,
    /// What the host typed and the guest has not read, at most [`INPUT_BYTES_MAX`] bytes.
    pub(crate) input: Vec<u8>,
}

impl SerialState {
    /// The kind of its section.
    #[must_use]
    pub(crate) fn kind() -> SectionKind {
        SectionKind {
            name: "serial-16550".into(),
            version: 1,
        }
    }
}

impl Codec for SerialState {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u8(self.interrupt_enable);
        writer.u8(self.line_control);
        writer.u8(self.modem_control);
        writer.u8(self.scratch);
        writer.u16(self.divisor);
        writer.bytes("serial input", &self.input, INPUT_BYTES_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            interrupt_enable: reader.u8()?,
            line_control: reader.u8()?,
            modem_control: reader.u8()?,
            scratch: reader.u8()?,
            divisor: reader.u16()?,
            input: reader.bytes("serial input", INPUT_BYTES_MAX)?.into(),
        })
    }
}

/// The port. What it printed stays on the host that saw it.
#[derive(Debug, Default)]
pub(crate) struct Serial {
    registers: SerialState,
    input: VecDeque<u8>,
    output: VecDeque<u8>,
}

impl Serial {
    /// The guest writes a register, 0..8.
    pub(crate) fn write(&mut self, register: u8, byte: u8) {
        let latched = self.registers.line_control & DIVISOR_LATCH != 0;
        let [low, high] = self.registers.divisor.to_le_bytes();
        match register {
            DATA if latched => self.registers.divisor = u16::from_le_bytes([byte, high]),
            INTERRUPT_ENABLE if latched => {
                self.registers.divisor = u16::from_le_bytes([low, byte]);
            }
            DATA => self.print(byte),
            INTERRUPT_ENABLE => self.registers.interrupt_enable = byte & 0x0f,
            LINE_CONTROL => self.registers.line_control = byte,
            MODEM_CONTROL => self.registers.modem_control = byte & 0x1f,
            SCRATCH => self.registers.scratch = byte,
            // FIFO control has nothing to control here; the status registers are read-only.
            _ => {}
        }
    }

    /// The guest reads a register, 0..8.
    pub(crate) fn read(&mut self, register: u8) -> u8 {
        let latched = self.registers.line_control & DIVISOR_LATCH != 0;
        let [low, high] = self.registers.divisor.to_le_bytes();
        match register {
            DATA if latched => low,
            INTERRUPT_ENABLE if latched => high,
            DATA => self.input.pop_front().unwrap_or(0),
            INTERRUPT_ENABLE => self.registers.interrupt_enable,
            INTERRUPT_IDENTITY => NO_INTERRUPT,
            LINE_CONTROL => self.registers.line_control,
            MODEM_CONTROL => self.registers.modem_control,
            LINE_STATUS if self.input.is_empty() => SENDER_EMPTY,
            LINE_STATUS => SENDER_EMPTY | DATA_READY,
            MODEM_STATUS => MODEM_READY,
            SCRATCH => self.registers.scratch,
            _ => 0xff,
        }
    }

    fn print(&mut self, byte: u8) {
        if self.output.len() == OUTPUT_BYTES_MAX {
            self.output.pop_front();
        }
        self.output.push_back(byte);
    }

    /// The host types; what is beyond [`INPUT_BYTES_MAX`] is lost, as on a real line.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        let room = INPUT_BYTES_MAX.saturating_sub(self.input.len());
        self.input.extend(bytes.iter().take(room));
    }

    /// The last [`OUTPUT_BYTES_MAX`] bytes that the guest printed.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.output.iter().copied().collect()
    }

    /// All that travels.
    pub(crate) fn state(&self) -> SerialState {
        SerialState {
            input: self.input.iter().copied().collect(),
            ..self.registers.clone()
        }
    }

    /// Takes the place of another port.
    pub(crate) fn restore(&mut self, state: SerialState) {
        self.input = state.input.iter().copied().collect();
        self.registers = state;
        self.registers.input.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_like_a_16550() {
        let mut serial = Serial::default();
        serial.write(LINE_CONTROL, DIVISOR_LATCH | 3);
        serial.write(DATA, 1);
        serial.write(INTERRUPT_ENABLE, 2);
        assert_eq!(serial.read(DATA), 1);
        serial.write(LINE_CONTROL, 3);
        b"godwit".iter().for_each(|byte| serial.write(DATA, *byte));
        assert_eq!(serial.output(), b"godwit");
        assert_eq!(serial.read(LINE_STATUS), SENDER_EMPTY);
        serial.type_in(b"V");
        assert_eq!(serial.read(LINE_STATUS), SENDER_EMPTY | DATA_READY);
        assert_eq!(serial.read(DATA), b'V');
        assert_eq!(serial.read(DATA), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut serial = Serial::default();
        for number in 0..OUTPUT_BYTES_MAX + 10 {
            serial.write(DATA, (number % 251) as u8);
        }
        assert_eq!(serial.output().len(), OUTPUT_BYTES_MAX);
        assert_eq!(serial.output()[0], 10);
        serial.type_in(&[0; INPUT_BYTES_MAX + 1]);
        assert_eq!(serial.state().input.len(), INPUT_BYTES_MAX);
    }

    #[test]
    fn a_restored_port_answers_alike() {
        let mut serial = Serial::default();
        serial.write(LINE_CONTROL, 0x1b);
        serial.write(SCRATCH, 0x5a);
        serial.type_in(b"typed ahead");
        let mut writer = Writer::new();
        serial.state().encode(&mut writer).expect("encode");
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        let state = SerialState::decode(&mut reader).expect("decode");
        reader.finish().expect("no tail");
        let mut other = Serial::default();
        other.restore(state);
        for register in [LINE_CONTROL, SCRATCH, DATA, DATA, LINE_STATUS] {
            assert_eq!(other.read(register), serial.read(register));
        }
        assert_eq!(other.state(), serial.state());
    }
}
