import { MicrovmiError } from '@microvmi/core'
import type { Backend } from '@microvmi/core/driver'
import { backends, changed, type Mutation, part } from './break-driver.testing.ts'

/** A driver whose release does something more, behind all it should. */
function released(more: (backend: Backend) => void): Mutation['breaks'] {
  return backends((backend) =>
    changed(backend, {
      release() {
        backend.release()
        more(backend)
      },
    }),
  )
}

const isGone = (error: unknown): boolean => error instanceof MicrovmiError && error.code === 'VM_GONE'

/** For each case about opening, closing, views and the like, a driver that it catches. */
export const brokenSessions: Readonly<Record<string, Mutation>> = {
  'opening: probe says that the driver can be used here': {
    how: 'probe asks for what is not needed',
    breaks: (driver) => ({ ...driver, probe: async () => ({ usable: false, reason: 'it is Monday' }) }),
    says: /probe\(\) says that it cannot: it is Monday/,
  },
  'opening: the VM is listed, and opens by its entry': {
    how: 'entries have names that open does not take',
    breaks: (driver) => ({
      ...driver,
      list: async (request) => (await driver.list(request)).map((entry) => ({ ...entry, vm: `vm ${entry.vm}` })),
    }),
    says: /no guest 'vm /,
  },
  'opening: the VM says what it is': {
    how: 'the hypervisor is not named',
    breaks: backends((backend) => changed(backend, { hypervisor: '' })),
    says: /info.hypervisor is empty/,
  },
  'opening: what it could do and cannot here has its reason': {
    how: 'nothing is said about views',
    breaks: backends((backend) =>
      changed(backend, { capabilities: backend.capabilities.filter((name) => name !== 'views'), lacks: {} }),
    ),
    says: /the backend's lacks tell nothing about views/,
  },
  'opening: a VM that is not there is not found': {
    how: 'a name that is not known is a plain error',
    breaks: (driver) => ({
      ...driver,
      open: (request) =>
        driver.open(request).catch((error: unknown) => {
          throw new Error('ENOENT', { cause: error })
        }),
    }),
    says: /which is not there, fails with Error: ENOENT, not with VM_NOT_FOUND/,
  },
  'opening: deadlines': {
    how: 'a deadline that is too short is a plain error',
    breaks: (driver) => ({
      ...driver,
      async open(request) {
        if (request.timeout < 10) throw new Error('too slow')
        return driver.open(request)
      },
    }),
    says: /open\(\) that may take 1 ms fails with Error: too slow, not with TIMEOUT/,
  },
  'opening: it can be given up': {
    how: 'an open that is given up never ends',
    breaks: (driver) => ({
      ...driver,
      open: (request) => (request.signal ? new Promise(() => {}) : driver.open(request)),
    }),
    says: /open\(\) whose signal was aborted took longer/,
  },
  'opening: it opens again and again': {
    how: 'what open takes is never given back, and there are three of it',
    breaks: (driver) => {
      const opened = new Map<string, number>()
      return {
        ...driver,
        async open(request) {
          const count = (opened.get(request.vm) ?? 0) + 1
          opened.set(request.vm, count)
          if (count > 3) throw new MicrovmiError('BUSY', 'no port is free')
          return driver.open(request)
        },
      }
    },
    says: /no port is free/,
  },
  'opening: a second session beside the first': {
    how: 'a second session ends the first',
    breaks: (driver) => {
      const current = new Map<string, object>()
      return {
        ...driver,
        async open(request) {
          const session = {}
          current.set(request.vm, session)
          return part('memory', (memory) => ({
            read(address, into) {
              if (current.get(request.vm) !== session) throw new MicrovmiError('PROTOCOL', 'the socket was closed')
              return memory.read(address, into)
            },
          }))(driver).open(request)
        },
      }
    },
    says: /the socket was closed/,
  },
  'views: are created and destroyed': {
    how: "a new view is the guest's own",
    breaks: part('views', () => ({ create: () => 0 })),
    says: /create\(\) returns 0/,
  },
  'views: the guest goes on in one, and back in its own': {
    how: 'the VM is stopped to switch, and stays so',
    breaks: part('views', (views, { running }) => ({
      switch: (view, vcpu) => {
        running?.pause()
        views.switch(view, vcpu)
      },
    })),
    says: /makes no progress in a view/,
  },
  'views: a view that is destroyed lets its vCPUs go back': {
    how: 'the VM is stopped to destroy a view, and stays so',
    breaks: part('views', (views, { running }) => ({
      destroy: (view) => {
        running?.pause()
        views.destroy(view)
      },
    })),
    says: /makes no progress after its view was destroyed/,
  },
  'views: have access rights of their own': {
    how: 'rights are those of all views',
    breaks: part('memory', (memory) => ({
      setAccess: (address, length, access) => memory.setAccess?.(address, length, access, 0),
      getAccess: (address) => memory.getAccess?.(address, 0) ?? 'none',
    })),
    says: /the access in the guest's own view is 'r'/,
  },
  'views: a page of one shows another page': {
    how: 'pages are not remapped',
    breaks: part('views', () => ({ remap() {} })),
    says: /the guest does not see the page of the view/,
  },
  'views: close puts the guest back in its own': {
    how: 'the VM is stopped to take its views, and stays so',
    breaks: released(({ running }) => running?.setState('paused')),
    says: /makes no progress after its view's session was closed/,
  },
  'injection: the guest takes what is injected': {
    how: 'injections are lost',
    breaks: backends((backend) => changed(backend, { inject() {} })),
    says: /the guest did not take injection 1 \(nmi\)/,
  },
  'closing: after it every member throws CLOSED': {
    how: 'release fails',
    breaks: released(() => {
      throw new Error('release has failed')
    }),
    says: /release has failed/,
  },
  'closing: twice is once': {
    how: 'close never ends',
    breaks: backends((backend) => changed(backend, { close: () => new Promise(() => {}) })),
    says: /two calls of close\(\) took longer/,
  },
  'closing: the guest can be opened anew': {
    how: 'close leaves the VM locked',
    breaks: (driver) => {
      const locked = new Set<string>()
      return {
        ...driver,
        async open(request) {
          if (locked.has(request.vm)) throw new MicrovmiError('BUSY', 'the VM is locked')
          locked.add(request.vm)
          return driver.open(request)
        },
      }
    },
    says: /the VM is locked/,
  },
  'closing: release undoes everything at once': {
    how: 'release puts all off to close',
    breaks: backends((backend) => {
      const { running } = backend
      if (!running) throw new Error('the backend has no running')
      return changed(backend, {
        running: changed(running, { resume() {} }),
        release() {},
        close() {
          backend.release()
          return backend.close()
        },
      })
    }),
    says: /the run state after release\(\), in another session, is 'paused'/,
  },
  'a VM that goes away: every call says so': {
    how: 'the memory of a VM that has gone reads as zeros',
    breaks: part('memory', (memory) => ({
      read(address, into) {
        try {
          return memory.read(address, into)
        } catch (error) {
          if (isGone(error)) return into.fill(0).length
          throw error
        }
      },
    })),
    says: /read\(\) of a VM that has gone: nothing was thrown, not VM_GONE/,
  },
  'a VM that goes away: the loops over its events end': {
    how: 'nobody is told that the VM has gone',
    breaks: part('events', (events) => ({
      listen: (sink) => events.listen({ deliver: (event) => sink.deliver(event), fail() {} }),
    })),
    says: /the end of a loop over cr events after the VM has gone took longer/,
  },
  'a VM that goes away: it can be closed, and leases end': {
    how: 'close asks the VM that has gone',
    breaks: backends((backend) =>
      changed(backend, {
        async close() {
          await backend.close()
          try {
            backend.running?.state()
          } catch (error) {
            throw new Error('ENOTCONN', { cause: error })
          }
        },
      }),
    ),
    says: /ENOTCONN/,
  },
}
