#!/usr/bin/env node
import { run } from './run.ts'

// `microvmi read … | head` ends the reader early: that is no failure, and what was open is closed as always.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

process.exitCode = await run(process.argv.slice(2), process)
