import { badArgument, type ViewBackend } from '@microvmi/core/driver'
import type { PageRights } from '@microvmi/page-rights'
import type { Connection } from './connection.ts'
import { expectDone } from './errors.ts'
import type { Vcpus } from './vcpus.ts'

/** EPT views of generation A. View 0 is the guest's own. */
export class KvmiViews implements ViewBackend {
  readonly #connection: Connection
  readonly #vcpus: Vcpus
  readonly #rights: PageRights
  /** Ours, and the frames that each shows another page for. */
  readonly #views = new Map<number, Set<number>>()
  /** The view that each vCPU was put in, where it is not the guest's own. */
  readonly #current = new Map<number, number>()

  constructor(connection: Connection, vcpus: Vcpus, rights: PageRights) {
    this.#connection = connection
    this.#vcpus = vcpus
    this.#rights = rights
  }

  /** kvmi_create_ept_view_reply: u16 view. */
  create(): number {
    const answer = this.#connection.ask((message) => this.#connection.requests.createView(message), 2)
    expectDone(answer.error, 'creating a view')
    const view = answer.view.getUint16(answer.start, true)
    this.#views.set(view, new Set())
    try {
      this.#rights.copyTo(view)
    } catch (error) {
      if (!this.#connection.hasEnded) this.destroy(view)
      throw error
    }
    return view
  }

  destroy(view: number): void {
    this.#checkOurs(view)
    for (const [vcpu, current] of [...this.#current]) if (current === view) this.switchOne(0, vcpu)
    const { error } = this.#connection.ask((message) => this.#connection.requests.destroyView(message, view))
    expectDone(error, `destroying view ${view}`)
    this.#views.delete(view)
    this.#rights.forget(view)
  }

  switch(view: number, vcpu: number | undefined): void {
    if (vcpu !== undefined) {
      this.switchOne(view, vcpu)
      return
    }
    for (let one = 0; one < this.#vcpus.count; one++) this.switchOne(view, one)
  }

  switchOne(view: number, vcpu: number): void {
    this.check(view)
    const { error } = this.#connection.ask((message) => this.#connection.requests.switchView(message, vcpu, view))
    expectDone(error, `putting vCPU ${vcpu} in view ${view}`)
    if (view === 0) this.#current.delete(vcpu)
    else this.#current.set(vcpu, view)
  }

  /** One's own page is shown again by naming it. */
  remap(view: number, gfn: number, to: number | undefined): void {
    this.#checkOurs(view)
    this.#show(view, gfn, to ?? gfn)
    if (to === undefined || to === gfn) this.#views.get(view)?.delete(gfn)
    else this.#views.get(view)?.add(gfn)
  }

  has(view: number): boolean {
    return view === 0 || this.#views.has(view)
  }

  /** The view that a vCPU is in. */
  of(vcpu: number): number {
    return this.#current.get(vcpu) ?? 0
  }

  /** Throws `BAD_ARGUMENT` for a view that is not there. */
  check(view: number): void {
    if (this.has(view)) return
    throw badArgument(`view ${view} is not there; there are ${[0, ...this.#views.keys()].join(', ')}`)
  }

  /** As the guest was before. */
  release(): void {
    for (const [view, remapped] of [...this.#views]) {
      for (const gfn of remapped) this.#show(view, gfn, gfn)
      this.destroy(view)
    }
  }

  #show(view: number, gfn: number, shown: number): void {
    const { error } = this.#connection.ask((message) =>
      this.#connection.requests.changeGfn(message, 0, view, gfn, shown),
    )
    expectDone(error, `showing page 0x${shown.toString(16)} in view ${view}`)
  }

  #checkOurs(view: number): void {
    this.check(view)
    if (view === 0) throw badArgument("view 0 is the guest's own: it stays as it is")
  }
}
