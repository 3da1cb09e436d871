export { LabUnavailable } from '@microvmi/lab-debian'
export { prepared } from './skip.ts'
export { GUEST, knownContent, startVirtualBox, type VirtualBoxLab, type VirtualBoxOptions } from './virtualbox.ts'
