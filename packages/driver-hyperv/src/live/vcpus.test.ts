import { expect, test } from 'vitest'
import { waitUntil } from './deadline.ts'
import { countVcpus } from './vcpus.ts'

test('there are as many vCPUs as have a rip, and no endless many', () => {
  expect(countVcpus((vcpu) => vcpu < 3)).toBe(3)
  expect(countVcpus(() => true)).toBe(2048)
  expect(() => countVcpus(() => false)).toThrow(/not even the first vCPU's rip/)
})

test('a wait ends when it is so, or with TIMEOUT', () => {
  let looks = 0
  waitUntil(() => ++looks > 3, 5000, 'it did not')
  expect(looks).toBe(4)
  expect(() => waitUntil(() => false, 5, 'it did not')).toThrow(expect.objectContaining({ code: 'TIMEOUT' }))
})
