import { bundled, HostRunner, type Place, type TestJob } from '@microvmi/lab-inside'
import { hyperVLibraries } from './libraries.ts'
import { runOnWindows } from './run.ts'
import { windowsPath } from './wine.ts'

const DEADLINE = 5 * 60_000

/** Runs this lab's test files on Node for Windows, under Wine. */
export default class WindowsRunner extends HostRunner {
  protected readonly place: Place = { root: windowsPath('/'), run }
}

async function run({ file, environment, result, signal }: TestJob): Promise<number> {
  const [module, libraries] = await Promise.all([bundled(file), hyperVLibraries()])
  const { status, output } = await runOnWindows({
    module,
    environment: { ...environment, MICROVMI_WINDOWS_LIBRARIES: windowsPath(libraries) },
    result,
    timeout: DEADLINE,
    signal,
  })
  process.stdout.write(output)
  return status
}
