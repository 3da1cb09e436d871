import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** Says that a file is a test file, for vitest's runner. */
const TEST_FILE = /\.test\.ts$/

/**
 * One module with all that a program of this workspace imports: where it runs there are no node_modules. A test file's
 * runs its tests, and writes each result as a line (inside/run-tests.ts).
 */
export async function bundled(file: string): Promise<Uint8Array> {
  const isTest = TEST_FILE.test(file)
  const contents = `import { runTests } from ${JSON.stringify(here('./inside/run-tests.ts'))}
await runTests(${JSON.stringify(file)}, () => import(${JSON.stringify(file)}))`
  const { outputFiles } = await build({
    ...(isTest ? { stdin: { contents, resolveDir: here('.'), loader: 'ts' } } : { entryPoints: [file] }),
    bundle: true,
    write: false,
    outfile: `${file}.mjs`,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    charset: 'utf8',
    sourcemap: 'inline',
    sourcesContent: false,
    logLevel: 'error',
    external: ['koffi'],
    alias: { vitest: here('./inside/vitest.ts') },
    // Modules of CommonJS ask for Node's by `require`, and some ask where they are.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  })
  const [output] = outputFiles
  if (!output) throw new Error(`${file} was bundled to nothing`)
  return output.contents
}

/** koffi with its library for x86-64 Linux, as files by path, below `node_modules`. */
export function koffiFiles(): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>()
  const koffi = dirname(createRequire(import.meta.url).resolve('koffi'))
  const native = dirname(createRequire(join(koffi, 'index.cjs')).resolve('@koromix/koffi-linux-x64'))
  addAll(
    koffi,
    'node_modules/koffi',
    (path) => /^(package\.json|(index|indirect)\.c?js|src\/koffi\/.*\.c?js)$/.test(path),
    files,
  )
  addAll(native, 'node_modules/@koromix/koffi-linux-x64', (path) => !path.startsWith('musl'), files)
  return files
}

function addAll(root: string, under: string, wanted: (path: string) => boolean, files: Map<string, Uint8Array>): void {
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const absolute = join(entry.parentPath, entry.name)
    const path = absolute.slice(root.length + 1)
    if (entry.isFile() && wanted(path)) files.set(`${under}/${path}`, readFileSync(absolute))
  }
}
