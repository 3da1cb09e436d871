export { cacheDirectory } from './cache.ts'
export { LabUnavailable } from './lab-unavailable.ts'
export { once } from './once.ts'
export { type PackageSet, unpacked } from './packages.ts'
