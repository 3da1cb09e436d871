/** A lab cannot come up on this machine: its tests are skipped with this reason, or fail where labs are required. */
export class LabUnavailable extends Error {
  override readonly name = 'LabUnavailable'
}
