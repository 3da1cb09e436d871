/**
 * Packets of gdb's remote serial protocol.
 *
 * @packageDocumentation
 */
export { encodePacket, type FromStub, PacketReader, type PacketReaderOptions } from './packets.ts'
