// Every TypeScript example in the documentation and in the sources' TSDoc becomes a file of its own in .examples/,
// so that the compiler checks what readers will copy.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const out = join(root, 'docs/.examples')

const FENCE = /^([ \t]*(?:\*[ ])?[ \t]*)```ts\n([\s\S]*?)^\1```/gm

const pages = ['README.md', 'docs/**/*.md', 'packages/*/*.md', 'examples/*/README.md', 'packages/*/src/**/*.ts']
const files = list(pages).filter((file) => !/\.(test|testing|types)\.ts$/.test(file) && !file.includes('node_modules'))

rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
let count = 0
for (const file of files) {
  for (const [, indent, code] of readFileSync(join(root, file), 'utf8').matchAll(FENCE)) {
    const lines = code
      .split('\n')
      .map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line.trimStart().replace(/^\*$/, '')))
    count += 1
    writeFileSync(join(out, `${String(count).padStart(3, '0')}.ts`), `// ${file}\nexport {}\n${lines.join('\n')}`)
  }
}
writeFileSync(
  join(out, 'tsconfig.json'),
  JSON.stringify({
    extends: '../../tsconfig.base.json',
    compilerOptions: { noEmit: true, types: ['node'] },
    include: ['*.ts'],
  }),
)
console.log(`${count} examples of ${files.length} files in ${relative(process.cwd(), out)}`)

function list(patterns) {
  return execFileSync(
    'git',
    ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...patterns.map((p) => `:(glob)${p}`)],
    {
      cwd: root,
      encoding: 'utf8',
    },
  )
    .split('\n')
    .filter(Boolean)
}
