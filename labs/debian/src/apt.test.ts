import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { Apt } from './apt.ts'

const hasApt = existsSync('/usr/bin/apt-get') && process.arch === 'x64'

// An archive of our own, on this machine's disk.
describe.skipIf(!hasApt)('with apt (a Debian-like x86-64 machine)', { timeout: 60_000 }, () => {
  let place: string
  let wanted: string
  const archive = () => join(place, 'archive')

  beforeAll(() => {
    place = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
    vi.stubEnv('MICROVMI_CACHE', join(place, 'cache'))
    mkdirSync(archive())
    add('tool', 'Depends: tool-data, library, missing-on-host', 'Source: tools (1)')
    add('tool-data', 'Depends: other', 'Source: tools')
    for (const name of ['library', 'other', 'missing-on-host', 'tool-unrelated']) add(name)
    add('metapackage', 'Depends: kernel-6.1.0-9, other')
    add('kernel-6.1.0-9')
    add('broken', 'Depends: nowhere')
    writeIndex()
  })
  afterAll(() => {
    vi.unstubAllEnvs()
    rmSync(place, { recursive: true })
  })
  beforeEach(() => {
    wanted = mkdtempSync(join(place, 'wanted-'))
  })
  afterEach(() => rmSync(join(place, 'cache'), { recursive: true }))

  function add(name: string, ...fields: string[]): void {
    const root = join(place, name)
    mkdirSync(join(root, 'DEBIAN'), { recursive: true })
    const control = [`Package: ${name}`, 'Version: 1-1', 'Architecture: amd64', 'Maintainer: a <a@b>', ...fields]
    writeFileSync(join(root, 'DEBIAN/control'), `${control.join('\n')}\nDescription: for a test\n`)
    execFileSync('dpkg-deb', ['--root-owner-group', '--build', root, archive()], { stdio: 'ignore' })
  }

  function writeIndex(): void {
    const paragraphs = readdirSync(archive())
      .filter((file) => file.endsWith('.deb'))
      .map((file) => {
        const control = execFileSync('dpkg-deb', ['--field', join(archive(), file)], { encoding: 'utf8' })
        const bytes = readFileSync(join(archive(), file))
        const sum = createHash('sha256').update(bytes).digest('hex')
        return `${control}Filename: ./${file}\nSize: ${bytes.length}\nSHA256: ${sum}\n`
      })
    writeFileSync(join(archive(), 'Packages'), paragraphs.join('\n'))
  }

  const apt = (installed: readonly string[] = []) => {
    const status = join(place, 'status')
    const paragraph = (name: string) =>
      `Package: ${name}\nStatus: install ok installed\nVersion: 1-1\nArchitecture: amd64\nMaintainer: a <a@b>\nDescription: a\n`
    writeFileSync(status, installed.map(paragraph).join('\n'))
    return new Apt({ name: 'test', sources: `deb [trusted=yes] file:${archive()} ./\n`, installed: status })
  }
  const namesOf = (files: readonly string[]) => files.map((file) => file.slice(0, file.indexOf('_'))).sort()

  test('what packages depend on and the host lacks', async () => {
    const files = await apt(['library', 'other']).download(['tool'], ['tool-unrelated'], wanted)
    expect(namesOf(files)).toEqual(['missing-on-host', 'tool', 'tool-data', 'tool-unrelated'])
  })

  test('what belongs together, even where the host has it', async () => {
    const everything = ['tool', 'tool-data', 'library', 'other', 'missing-on-host']
    expect(namesOf(await apt(everything).download(['tool'], [], wanted))).toEqual(['tool', 'tool-data'])
  })

  test('what a metapackage stands for', async () => {
    expect(await apt().dependencyOf('metapackage', 'kernel-6')).toBe('kernel-6.1.0-9')
    await expect(apt().dependencyOf('metapackage', 'kernel-7')).rejects.toThrow('depends on no kernel-7')
  })

  test('what is missing is named, whatever the language', async () => {
    vi.stubEnv('LC_ALL', 'de_DE.UTF-8')
    await expect(apt().download(['nonesuch'], [], wanted)).rejects.toThrow('needs the Debian package nonesuch: ')
    await expect(apt().download([], ['nonesuch'], wanted)).rejects.toThrow('needs the Debian package nonesuch: ')
    await expect(apt().download(['broken'], [], wanted)).rejects.toThrow('needs the Debian package nowhere: ')
    await expect(apt().dependencyOf('nonesuch', '')).rejects.toThrow('needs the Debian package nonesuch: ')
    await expect(apt().downloadSources(['tool'], wanted)).rejects.toMatchObject({ name: 'LabUnavailable' })
  })

  test('several at once use one index, and an index that has aged is fetched anew', async () => {
    const targets = [0, 1, 2].map(() => mkdtempSync(join(place, 'wanted-')))
    const all = await Promise.all(targets.map((target) => apt().download(['library'], [], target)))
    expect(all.map(namesOf)).toEqual([['library'], ['library'], ['library']])
    add('newcomer')
    writeIndex()
    await expect(apt().download(['newcomer'], [], wanted)).rejects.toThrow('needs the Debian package newcomer')
    const twoHoursAgo = Date.now() / 1000 - 2 * 60 * 60
    utimesSync(join(place, 'cache/apt-test/updated'), twoHoursAgo, twoHoursAgo)
    expect(namesOf(await apt().download(['newcomer'], [], wanted))).toEqual(['newcomer'])
  })
})
