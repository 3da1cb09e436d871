const never = new Int32Array(new SharedArrayBuffer(4))

/** Blocks this thread: a guest stands still meanwhile, or there is nothing else to do. */
export function sleepSync(milliseconds: number): void {
  Atomics.wait(never, 0, 0, milliseconds)
}
