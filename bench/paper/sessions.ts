import type { Contestant } from './series.ts'
import type { PaperVm } from './tasks.ts'

/** microvmi: a session for each loop. */
export function microvmi(
  open: () => Promise<PaperVm>,
  loop: (vm: PaperVm, values: number) => Promise<readonly number[]>,
): Contestant {
  return {
    name: 'microvmi',
    async loop(values) {
      const vm = await open()
      try {
        return await loop(vm, values)
      } finally {
        await vm.close()
      }
    },
  }
}

/** One value after another. */
export function each(
  value: (vm: PaperVm) => number | Promise<number>,
): (vm: PaperVm, values: number) => Promise<readonly number[]> {
  return async (vm, values) => {
    const all: number[] = []
    for (let count = 0; count < values; count++) all.push(await value(vm))
    return all
  }
}
