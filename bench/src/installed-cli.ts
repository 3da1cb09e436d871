import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const packages = fileURLToPath(new URL('../../packages', import.meta.url))
const WANTED = ['core', 'dump', 'paging', 'driver-kvm', 'cli']

/** The command line as users have it: packed, and installed in a project of its own. Built packages are wanted. */
export function installCli(): { readonly main: string; readonly directory: string; remove(): void } {
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-installed-'))
  for (const name of WANTED) {
    execFileSync('pnpm', ['pack', '--out', join(directory, `${name}.tgz`)], {
      cwd: join(packages, name),
      stdio: 'ignore',
    })
  }
  writeFileSync(join(directory, 'package.json'), '{ "private": true }')
  const tarballs = readdirSync(directory).filter((file) => file.endsWith('.tgz'))
  execFileSync('npm', ['install', '--no-audit', '--no-fund', ...tarballs.map((file) => `./${file}`)], {
    cwd: directory,
    stdio: 'ignore',
  })
  return {
    directory,
    main: join(directory, 'node_modules/@microvmi/cli/dist/main.js'),
    remove: () => rmSync(directory, { recursive: true, force: true }),
  }
}
