/** A source package as it was fetched. */
export interface SourcePackage {
  readonly name: string
  /** What its .dsc file says (deb-src-control(5)), without the signature. */
  readonly control: string
}

/**
 * The source packages of an archive's index whose files are all there. The index is signed and holds what a .dsc file
 * does: that one need not be fetched.
 */
export function sourcePackages(index: string, files: readonly string[]): SourcePackage[] {
  const isThere = new Set(files)
  return index
    .split(/\n\n+/)
    .map((paragraph) => `${paragraph.replace(/^ \w+ \d+ \S+\.dsc\n/gm, '')}\n`)
    .filter((paragraph) => {
      const names = [...paragraph.matchAll(/^ [0-9a-f]{64} \d+ (\S+)$/gm)].map(([, name = '']) => name)
      return names.length > 0 && names.every((name) => isThere.has(name))
    })
    .map((paragraph) => ({
      name: /^Package: (\S+)/m.exec(paragraph)?.[1] ?? '',
      control: paragraph.replace(/^Package:/m, 'Source:'),
    }))
}
