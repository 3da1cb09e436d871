import { LabUnavailable } from '@microvmi/lab-debian'

/** What of a test runner's context is used to skip with a reason. */
interface Skipping {
  skip(reason: string): never
}

/**
 * The result of bringing a lab up; where it cannot come up here, the test is skipped with the reason, or fails with it
 * when `MICROVMI_LABS=required`.
 */
export async function prepared<T>(context: Skipping, bringUp: () => Promise<T>): Promise<T> {
  try {
    return await bringUp()
  } catch (error) {
    if (!(error instanceof LabUnavailable) || process.env.MICROVMI_LABS === 'required') throw error
    return context.skip(error.message)
  }
}
