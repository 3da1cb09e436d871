export { bundled, koffiFiles } from './bundle.ts'
export { type LibraryList, librariesOf } from './libraries.ts'
