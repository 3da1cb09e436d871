import { conformsOn } from './conformance.testing.ts'

conformsOn({ vcpus: 2, debugger: 'gdb' })
