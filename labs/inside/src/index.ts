export { bundled, koffiFiles } from './bundle.ts'
export { HostRunner } from './host-runner.ts'
export type { Place, TestJob } from './tests-inside.ts'
