/** machine/debug-port.c: how a frame begins. */
const START = 2
const HEADER = 4

/**
 * Takes frames out of what the emulator prints, and leaves out what is none: the emulator's own words have no byte 2.
 * @param take is given what each frame carries, by the number of its FIFO, from 1 on
 */
export function frames(take: (fifo: number, bytes: Buffer) => void): (printed: Buffer) => void {
  let rest = Buffer.alloc(0)
  return (printed) => {
    let bytes = Buffer.concat([rest, printed])
    for (;;) {
      const start = bytes.indexOf(START)
      bytes = bytes.subarray(start < 0 ? bytes.length : start)
      if (bytes.length < HEADER) break
      const end = HEADER + bytes.readUInt16LE(2)
      if (bytes.length < end) break
      take(bytes[1] ?? 0, bytes.subarray(HEADER, end))
      bytes = bytes.subarray(end)
    }
    rest = Buffer.from(bytes)
  }
}
