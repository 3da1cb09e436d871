// Installs the dependencies with the pinned pnpm when this checkout lacks them, so that every root script works from a
// fresh clone with only Node and npm. When there is nothing to do it costs one comparison of two files.
import { execSync } from 'node:child_process'
import { copyFileSync, existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = new URL('..', import.meta.url)
const lockfile = new URL('pnpm-lock.yaml', root)
const installed = new URL('node_modules/.installed-lock.yaml', root)

if (!existsSync(installed) || !readFileSync(installed).equals(readFileSync(lockfile))) {
  const { packageManager } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
  console.error(`Installing the dependencies with ${packageManager} (once, and again when pnpm-lock.yaml changes) ...`)
  // Empty is as good as not set (XDG Base Directory Specification); pnpm would keep its store in the checkout.
  const isSet = ([name, value]) => value !== '' || !name.startsWith('XDG_')
  const env = Object.fromEntries(Object.entries(process.env).filter(isSet))
  try {
    // A shell finds npx on every platform; all of its output is shown only when it fails.
    execSync(`npx --yes ${packageManager} install --frozen-lockfile --reporter=append-only`, {
      cwd: fileURLToPath(root),
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 10 * 60_000,
      maxBuffer: Number.POSITIVE_INFINITY,
    })
  } catch (error) {
    console.error(`${error.stdout ?? ''}${error.stderr ?? ''}`)
    console.error('The dependencies could not be installed; the lines above say why. Nothing was run.')
    process.exit(1)
  }
  copyFileSync(lockfile, installed)
}
