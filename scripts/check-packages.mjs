// Packs every published package as it would be released, and checks the tarballs: publint, the resolution of the types
// (ESM only), and that nothing of the workspace's own protocols is left in them. Wants built packages.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const packages = fileURLToPath(new URL('../packages', import.meta.url))
const tarballs = mkdtempSync(join(tmpdir(), 'microvmi-packages-'))
let failed = 0

function check(name, command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', timeout: 120_000 })
  if (status === 0) return
  failed += 1
  console.error(`${name}: ${command} failed\n${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}`)
}

try {
  for (const directory of readdirSync(packages)) {
    const cwd = join(packages, directory)
    const manifest = JSON.parse(readFileSync(join(cwd, 'package.json'), 'utf8'))
    if (manifest.private) continue
    const tarball = join(tarballs, `${directory}.tgz`)
    execFileSync('pnpm', ['pack', '--out', tarball], { cwd, stdio: ['ignore', 'ignore', 'inherit'] })

    const packed = execFileSync('tar', ['-xOf', tarball, 'package/package.json'], { encoding: 'utf8' })
    const leftover = packed.match(/"(workspace|catalog|link|file):[^"]*"/)
    if (leftover !== null) {
      failed += 1
      console.error(`${manifest.name}: ${leftover[0]} is left in the packed package.json`)
    }
    check(manifest.name, 'publint', ['run', tarball, '--strict'])
    check(manifest.name, 'attw', [tarball, '--profile', 'esm-only', '--no-emoji'])
    console.log(`${manifest.name}@${manifest.version} checked`)
  }
} finally {
  rmSync(tarballs, { recursive: true, force: true })
}
process.exitCode = failed === 0 ? 0 : 1
