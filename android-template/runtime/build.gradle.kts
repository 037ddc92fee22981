import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// Plain JVM Kotlin on the native runtime, which comes prebuilt in app/src/main/jniLibs.
plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

java {
    sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget.set(JvmTarget.fromTarget(libs.versions.jvmTarget.get()))
        allWarningsAsErrors.set(true)
    }
}

dependencies {
    api(project(":engine"))
    implementation(libs.bundles.runtime)
    testImplementation(libs.bundles.test)
}
