export { ALL_RIGHTS, accessOf, bitsOf, RIGHT } from './access.ts'
export { PageRights, type PageRightsOf } from './page-rights.ts'
