/** Where `list` listens, and `open` where it is given no socket: a path, `PATH:PATH`, `vsock:PORT`. */
export const ENVIRONMENT = 'MICROVMI_KVMI_SOCKET'

/** What can be set when a VM is opened. */
export interface KvmiOptions {
  /** Path of the unix socket to listen at: that of QEMU's `-chardev socket,path=…,reconnect=10`. */
  readonly socket?: string
  /** A vsock port to listen at instead, for a guest that introspects its neighbours. */
  readonly vsock?: number
  /** Who the socket belongs to, for a QEMU that runs as another user: `libvirt-qemu`, `libvirt-qemu:kvm`, `64055`. */
  readonly owner?: string
  /** The socket's mode, in octal. Default `0600`. */
  readonly mode?: string
  /** What QEMU's `key` holds, where it has one: only who knows it may introspect. */
  readonly secret?: string
  /** A file with the secret, byte for byte. */
  readonly secretFile?: string
  /** Milliseconds to wait for QEMU to dial in. Default 12,000: QEMU tries again every `reconnect` seconds. */
  readonly wait?: number
}
