/** A GUID in a text, in lower case, without braces. */
export function guidIn(text: string): string | undefined {
  return /(?<![0-9a-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-z])/i.exec(text)?.[0].toLowerCase()
}

/** What a user may call a VM by, as listings write ids. */
export function normalId(text: string): string {
  return guidIn(text) ?? text.toLowerCase()
}
