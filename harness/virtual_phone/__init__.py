"""A virtual phone: the device side of adb on this machine, for the same signed APK as a phone's.

From the outside in: `transport` and `streams` speak adb's protocol; `adbd` opens the services that
hosts name (`shell_service`, `sync`, `forwarding`); `system` and `commands` answer Android's
commands over `packages`, `activities`, `logd` and `condition`; `app_process` runs apps on a JVM
with the classes of `framework/`; `sandbox` and `rootfs` fence everything in by Linux namespaces.
`daemon` puts it together; `lifecycle` is what the rest of the harness uses.

It proves correctness, never speed: nothing that is measured on it says anything about a phone.
"""
