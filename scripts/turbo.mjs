// Runs turbo without telemetry, on every platform.
import { createRequire } from 'node:module'

process.env.TURBO_TELEMETRY_DISABLED = '1'
createRequire(import.meta.url)('turbo/bin/turbo')
