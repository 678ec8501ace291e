// Which frames the driver wants (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3): its receive modes, its tables of
// unicast and multicast addresses, its VLANs. Until the driver says otherwise everything passes.
import { macText } from './ethernet.ts';

/** Addresses that a table holds: with more, all of the kind pass (5.1.6.5.2 lets a device be imprecise). */
const TABLE_MAX = 1024;
const VLAN_IDS = 4096;

export type ReceiveMode = 'promiscuous' | 'allMulticast' | 'allUnicast' | 'noMulticast' | 'noUnicast' | 'noBroadcast';

export class ReceiveFilter {
  readonly modes: Record<ReceiveMode, boolean> = {
    // 5.1.6.5.1: the driver expects promiscuous off only once it could say so; before, QEMU has it on too.
    promiscuous: true, allMulticast: false, allUnicast: false, noMulticast: false, noUnicast: false, noBroadcast: false,
  };
  /** CTRL_VLAN was negotiated: tagged frames pass by VLAN only. */
  vlanFilter = false;
  readonly #vlans = new Uint8Array(VLAN_IDS);
  #unicast: ReadonlySet<string> | 'all' = new Set();
  #multicast: ReadonlySet<string> | 'all' = new Set();

  /** Addresses as text, sorted; 'all': more than the table holds. */
  get unicast(): readonly string[] | 'all' {
    return textOf(this.#unicast);
  }

  get multicast(): readonly string[] | 'all' {
    return textOf(this.#multicast);
  }

  /** Ids whose frames pass, ascending; undefined: VLANs are not looked at. */
  get vlans(): readonly number[] | undefined {
    return this.vlanFilter ? [...this.#vlans.keys()].filter((id) => this.#vlans[id] === 1) : undefined;
  }

  setTables(unicast: readonly Uint8Array[], multicast: readonly Uint8Array[]): void {
    this.#unicast = table(unicast);
    this.#multicast = table(multicast);
  }

  /** False for an id that there is not. */
  setVlan(id: number, wanted: boolean): boolean {
    if (id >= VLAN_IDS) return false;
    this.#vlans[id] = wanted ? 1 : 0;
    return true;
  }

  passes(frame: Uint8Array, mac: Uint8Array): boolean {
    const { modes } = this;
    if (modes.promiscuous) return true;
    if (this.vlanFilter && frame[12] === 0x81 && frame[13] === 0x00) {
      if (this.#vlans[((frame[14] << 8) | frame[15]) & 0xfff] === 0) return false;
    }
    if ((frame[0] & 1) !== 0) {
      if (isBroadcast(frame)) return !modes.noBroadcast;
      return !modes.noMulticast && (modes.allMulticast || holds(this.#multicast, frame));
    }
    return !modes.noUnicast && (modes.allUnicast || isTo(frame, mac) || holds(this.#unicast, frame));
  }
}

function table(addresses: readonly Uint8Array[]): ReadonlySet<string> | 'all' {
  return addresses.length > TABLE_MAX ? 'all' : new Set(addresses.map((address) => keyOf(address)));
}

function holds(addresses: ReadonlySet<string> | 'all', frame: Uint8Array): boolean {
  return addresses === 'all' || (addresses.size > 0 && addresses.has(keyOf(frame)));
}

function textOf(addresses: ReadonlySet<string> | 'all'): readonly string[] | 'all' {
  return addresses === 'all' ? 'all' : [...addresses].map((key) => macText(Buffer.from(key, 'latin1'))).sort();
}

function keyOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, 6));
}

function isBroadcast(frame: Uint8Array): boolean {
  for (let i = 0; i < 6; i += 1) if (frame[i] !== 0xff) return false;
  return true;
}

function isTo(frame: Uint8Array, mac: Uint8Array): boolean {
  for (let i = 0; i < 6; i += 1) if (frame[i] !== mac[i]) return false;
  return true;
}
