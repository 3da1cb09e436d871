export { hyperVLibraries } from './libraries.ts'
export { runOnWindows, type WindowsJob } from './run.ts'
export { windowsPath } from './wine.ts'
