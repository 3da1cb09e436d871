/**
 * Virtual memory of a guest, on core alone.
 *
 * @packageDocumentation
 */
export { AddressSpace, type Translation } from './address-space.ts'
export { type Mapping, type MappingsOptions, mappings } from './mappings.ts'
export { type Paging, type PagingMode, type PagingRegisters, pagingOf } from './mode.ts'
export { type PhysicalMemory, physicalMemoryOf } from './physical-memory.ts'
