import { LabUnavailable } from '@microvmi/lab-debian'
import { afterEach, expect, test, vi } from 'vitest'
import type { TestResult } from './results.ts'
import { type Place, TestsInside } from './tests-inside.ts'

const line = (result: Partial<TestResult>) => JSON.stringify({ type: 'test', path: ['a'], state: 'pass', ...result })

function running(run: Place['run']): TestsInside {
  return new TestsInside({ root: '/job/', run }, 'x.test.ts')
}

afterEach(() => {
  vi.unstubAllEnvs()
})

test('results are told by name, in whatever order they come; those of one name in their own', async () => {
  const inside = running(async ({ result }) => {
    result(line({ path: ['b'], duration: 1 }))
    await undefined
    result(line({ path: ['a'], duration: 2 }))
    result(line({ path: ['a'], duration: 3 }))
    return 0
  })
  expect(await inside.next(['a'])).toMatchObject({ path: ['a'], duration: 2 })
  expect(await inside.next(['a'])).toMatchObject({ path: ['a'], duration: 3 })
  expect(await inside.next(['b'])).toMatchObject({ path: ['b'], duration: 1 })
  expect(await inside.failureOf([])).toBeUndefined()
})

test('errors are told in terms of the files here', () => {
  const inside = running(async () => 0)
  const stack = 'TypeError: m\n    at f (/job/packages/x.ts:1:2)'
  const error = inside.errorOf({
    type: 'test',
    path: [],
    state: 'fail',
    errors: [{ name: 'TypeError', message: 'm', stack }],
  })
  expect(error).toMatchObject({ name: 'TypeError', message: 'm' })
  expect(error.stack).toContain(`(${process.cwd()}/packages/x.ts:1:2)`)
})

test('what hooks threw fails their heading, and a run that ended badly the file', async () => {
  const errors = [{ name: 'Error', message: 'in a hook', stack: '' }]
  const inside = running(async ({ result }) => {
    result(line({ type: 'suite', path: ['d'], state: 'fail', errors }))
    return 134
  })
  expect((await inside.failureOf([]))?.message).toContain('134')
  expect((await inside.failureOf(['d']))?.message).toBe('in a hook')
  expect(await inside.failureOf(['e'])).toBeUndefined()
})

test('a test that nothing was told of fails with the reason', async () => {
  const silent = await running(async () => 0).next(['a'])
  expect(silent).toMatchObject({ state: 'fail' })
  const broken = await running(async () => Promise.reject(new Error('no disk'))).next(['a'])
  expect(broken.errors?.[0]?.message).toBe('no disk')
  const garbled = await running(async ({ result }) => {
    result('{"type":"test"}')
    return 0
  }).next(['a'])
  expect(garbled.errors?.[0]?.name).toBe('SyntaxError')
})

test('where the lab cannot come up tests are skipped with the reason, or fail with it when labs are required', async () => {
  const unavailable: Place['run'] = async () => Promise.reject(new LabUnavailable('needs gcc'))
  vi.stubEnv('MICROVMI_LABS', '')
  const inside = running(unavailable)
  expect(await inside.next(['a'])).toMatchObject({ state: 'skip', note: 'needs gcc' })
  expect(await inside.failureOf([])).toBeUndefined()
  vi.stubEnv('MICROVMI_LABS', 'required')
  expect(await running(unavailable).next(['a'])).toMatchObject({ state: 'fail' })
})

test('it can be stopped', async () => {
  const inside = running(
    ({ signal }) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('off')))),
  )
  const next = inside.next(['a'])
  inside.stop()
  expect((await next).errors?.[0]?.message).toBe('off')
})
