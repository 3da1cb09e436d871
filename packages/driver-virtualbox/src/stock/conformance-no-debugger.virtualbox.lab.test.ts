import { conformsOn } from './conformance.testing.ts'

conformsOn({ vcpus: 1, debugger: 'none' })
